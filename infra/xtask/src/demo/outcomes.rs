//! What became of the demo's jobs, shown and checked: files that read back, retries counted, every credit accounted for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use local::Result;
use local::scripted::ScriptedServer;
use resvg::{tiny_skia, usvg};

use super::{METERED_PRICE, METERED_USED, Order, User, heading};
use crate::stack::Functions;

/// Answers how many succeeded; a QR code counts once its file reads back as its text.
pub(super) fn show(orders: &[Order<'_>], folder: &Path) -> Result<usize> {
    let (mut succeeded, mut codes) = (0, 0);
    for Order { user, kind, input, job, .. } in orders {
        let status = job["status"].as_str().unwrap_or_default();
        let shown = match (status, *kind) {
            ("succeeded", "qr.svg") => {
                codes += 1;
                let file = folder.join(format!("qr-{codes}.svg"));
                fs::write(&file, job["output"]["svg"].as_str().ok_or("a QR code without its svg")?)?;
                let text = read_qr(&fs::read_to_string(&file)?)?;
                if input["text"] != text.as_str() {
                    return Err(format!("{} says {text:?} instead of {input}", file.display()).into());
                }
                format!("{} reads {text:?}", file.display())
            }
            ("succeeded", _) => format!("{}, credits {}", job["output"], job["credits"]),
            ("canceled", _) => format!("credits {}", job["credits"]),
            _ => job["error"].to_string(),
        };
        succeeded += usize::from(status == "succeeded");
        println!("  {}  {kind:<12} {status:<10} attempt {}  {shown}", user.name, job["attempt"]);
    }
    Ok(succeeded)
}

/// Draws the SVG and reads the QR code off the picture.
fn read_qr(svg: &str) -> Result<String> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default())?;
    let size = tree.size().to_int_size();
    let mut picture = tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("an empty picture")?;
    picture.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut picture.as_mut());
    let (width, height) = (size.width() as usize, size.height() as usize);
    let grey = |x: usize, y: usize| picture.pixels()[y * width + x].green();
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
    let (_, text) = image.detect_grids().first().ok_or("no QR code in the picture")?.decode()?;
    Ok(text)
}

/// The job that fails twice and then succeeds did exactly that, as its target saw it.
pub(super) fn retried_twice(orders: &[Order<'_>], target: &ScriptedServer) -> Result<()> {
    let calls = target.requests().iter().filter(|request| request.path == "/flaky").count();
    let flaky = orders.iter().find(|order| order.kind == "demo.flaky").ok_or("no demo.flaky")?;
    match calls == 3 && flaky.status() == "succeeded" && flaky.job["attempt"] == 3 {
        true => Ok(()),
        false => Err(format!("demo.flaky was called {calls} times: {}", flaky.job).into()),
    }
}

/// The metered job cost what it used, and not what was held for it.
pub(super) fn paid_what_was_used(orders: &[Order<'_>]) -> Result<()> {
    let metered = orders.iter().find(|order| order.kind == "demo.metered").ok_or("no demo.metered")?;
    let credits = &metered.job["credits"];
    let released = METERED_PRICE - METERED_USED;
    match credits["captured"] == METERED_USED && credits["released"] == released && credits["held"] == 0 {
        true => Ok(()),
        false => Err(format!("demo.metered used {METERED_USED} of {METERED_PRICE}: {}", metered.job).into()),
    }
}

/// Prints the user's ledger, oldest first, and answers how many failed jobs got their whole price back.
pub(super) async fn show_ledger(functions: &Functions, user: &User, orders: &[Order<'_>]) -> Result<usize> {
    let ledger = functions.get(user.id, "/api/credits/ledger?limit=100").await?;
    let entries = ledger["data"].as_array().ok_or("a ledger without data")?;
    let jobs: HashMap<&str, &Order<'_>> = orders.iter().map(|order| (order.id.as_str(), order)).collect();
    heading(&format!("{}'s ledger", user.name));
    println!("  {:<8} {:<13} {:>9} {:>6}   {:>9} {:>6}", "entry", "for", "available", "held", "then", "held");
    let mut refunded = 0;
    for entry in entries.iter().rev() {
        let number = |field: &str| entry[field].as_i64().unwrap_or_default();
        let (kind, order) = (
            entry["kind"].as_str().unwrap_or_default(),
            entry["job_id"].as_str().and_then(|id| jobs.get(id)),
        );
        let paid_for = order.map_or_else(|| entry["reason"].as_str().unwrap_or_default(), |order| order.kind);
        let (available, held) = (number("available_delta"), number("held_delta"));
        let (available_after, held_after) = (number("available_after"), number("held_after"));
        println!(
            "  {kind:<8} {paid_for:<13} {available:>+9} {held:>+6}   {available_after:>9} {held_after:>6}"
        );
        let whole =
            |order: &Order<'_>| order.status() == "failed" && order.job["credits"]["price"] == available;
        refunded += usize::from(kind == "release" && order.is_some_and(|order| whole(order)));
    }
    Ok(refunded)
}
