//! The table, the JSON and the plots.

use std::fmt::Write;
use std::path::Path;

use local::{Result, tools};
use plotters::prelude::*;

use crate::compare::Row;

/// One line for each contender, ours first.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let head = ["jobs/s", "spread", "ours ÷", "CPU µs", "WAL B", "stmts", "commits", "dead", "more"];
    let mut workload = "";
    for row in rows {
        if row.workload != workload {
            workload = &row.workload;
            let _ = writeln!(text, "\n{workload}");
            let _ = writeln!(
                text,
                "  {:<22} {:>9} {:>15} {:>7} {:>8} {:>7} {:>7} {:>7} {:>6}  {}",
                "", head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8]
            );
        }
        let measure = &row.median;
        let optional = |value: Option<f64>, digits| value.map_or("–".into(), |it| format!("{it:.digits$}"));
        let more: Vec<String> =
            measure.more.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        let _ = writeln!(
            text,
            "  {:<22} {:>9} {:>15} {:>7} {:>8} {:>7.0} {:>7} {:>7.3} {:>6.2}  {}",
            row.contender,
            short(measure.rate),
            format!("{}–{}", short(row.spread.0), short(row.spread.1)),
            optional(row.ratio, 2),
            optional(measure.server_cpu_us, 1),
            measure.wal_bytes,
            optional(measure.statements, 3),
            measure.commits,
            measure.dead_rows,
            more.join(" · "),
        );
    }
    text
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Keeps the rows and a plot of each workload under `target/bench`.
pub(crate) fn keep(rows: &[Row], also: Option<&Path>) -> Result<()> {
    let folder = tools::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let json = serde_json::to_string_pretty(rows)?;
    std::fs::write(folder.join("results.json"), &json)?;
    if let Some(file) = also {
        std::fs::write(file, &json)?;
    }
    let mut workloads: Vec<&str> = rows.iter().map(|row| row.workload.as_str()).collect();
    workloads.dedup();
    let path = folder.join("results.svg");
    let height = 40 + 46 * rows.len() as u32 + 60 * workloads.len() as u32;
    let area = SVGBackend::new(&path, (900, height)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| error.to_string())?;
    draw(&area, rows).map_err(|error| error.to_string())?;
    area.present().map_err(|error| error.to_string())?;
    println!("\nkept: {}, {}", folder.join("results.json").display(), path.display());
    Ok(())
}

/// A bar for each contender, within its workload as long as its rate.
fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    rows: &[Row],
) -> std::result::Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let text = |size: i32| ("sans-serif", size).into_font();
    let (mut y, mut workload) = (20, "");
    for row in rows {
        if row.workload != workload {
            workload = &row.workload;
            y += 20;
            area.draw(&Text::new(workload.to_owned(), (20, y), text(18)))?;
            y += 30;
        }
        let longest = rows.iter().filter(|it| it.workload == row.workload);
        let longest = longest.map(|it| it.median.rate).fold(f64::MIN_POSITIVE, f64::max);
        let width = (row.median.rate / longest * 520.0) as i32;
        let color =
            if row.contender.starts_with("ours") { RGBColor(32, 96, 160) } else { RGBColor(150, 150, 150) };
        area.draw(&Text::new(row.contender.clone(), (20, y + 4), text(14)))?;
        area.draw(&Rectangle::new([(210, y), (210 + width, y + 20)], color.filled()))?;
        area.draw(&Text::new(format!("{} /s", short(row.median.rate)), (220 + width, y + 4), text(14)))?;
        y += 30;
    }
    Ok(())
}
