//! What `limbeck speed` found.

use anyhow::Context;
use limbeck::speed::{Measurement, Shape, Workload};
use serde::Serialize;
use serde_json::json;

use super::table::Table;

/// One measured workload.
#[derive(Debug, Serialize)]
pub(crate) struct SpeedRow {
    workload: &'static str,
    images_per_s: f64,
    median_ms: f64,
    runs: usize,
    total_s: f64,
    /// Multiplications and additions that one image needs.
    flops_per_image: f64,
}

impl SpeedRow {
    pub(crate) fn new(workload: Workload, shape: Shape, found: Measurement) -> Self {
        let seconds = found.median.as_secs_f64();
        Self {
            workload: workload.name(),
            images_per_s: workload.images(shape) as f64 / seconds,
            median_ms: seconds * 1e3,
            runs: found.runs,
            total_s: found.total.as_secs_f64(),
            flops_per_image: workload.flops(shape),
        }
    }
}

/// An object a line, the processor's limit first if it was asked for.
pub(crate) fn speed_lines(peak: Option<f64>, rows: &[SpeedRow]) -> anyhow::Result<String> {
    let mut lines = String::new();
    if let Some(peak) = peak {
        lines += &format!("{}\n", json!({ "workload": "peak", "gflops_per_s": peak / 1e9 }));
    }
    rows.iter().try_fold(lines, |lines, row| {
        let line = serde_json::to_string(row).context("cannot write a measurement as JSON")?;
        Ok(lines + &line + "\n")
    })
}

/// A table with each workload's share of the processor's limit.
pub(crate) fn speed_table(peak: f64, threads: usize, rows: &[SpeedRow]) -> String {
    let mut table = Table::new(["workload", "images/s", "median ms", "runs", "of peak"])
        .right(1)
        .right(2)
        .right(3)
        .right(4);
    for row in rows {
        table.row([
            row.workload.to_owned(),
            format!("{:.0}", row.images_per_s),
            format!("{:.2}", row.median_ms),
            row.runs.to_string(),
            format!("{:.0} %", 100.0 * row.images_per_s * row.flops_per_image / peak),
        ]);
    }
    format!("{table}\npeak of {threads} threads: {:.0} GFLOP/s in multiply-adds\n", peak / 1e9)
}
