//! Nothing to do: what a tick costs.

use local::Result;
use serde_json::json;

use super::drain::poller;
use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};

const TICKS: u32 = 50;

pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let contenders: Vec<(String, Run<'_>)> =
        vec![("ours, a tick".into(), Box::new(move || Box::pin(ticks(bench))))];
    bench.compare("idle: ticks with nothing due", contenders).await
}

async fn ticks(bench: &Bench) -> Result<Measure> {
    let database = bench.server.database("ours").await?;
    let poller = poller(bench, &database, 0);
    let tick = async || poller.invoke(&json!({})).await.map_err(|error| error.to_string());
    tick().await?;
    let meter = Meter::start(&bench.server, &database.name).await?;
    for _ in 0..TICKS {
        tick().await?;
    }
    let measure = meter.stop(f64::from(TICKS)).await?;
    drop(poller);
    bench.server.drop_audited(database).await?;
    Ok(measure)
}
