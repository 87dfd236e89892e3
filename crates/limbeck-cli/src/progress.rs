//! Progress on stderr, the clock of the stages, and Ctrl-C.
//!
//! A terminal shows a bar for the task at hand and keeps a line for each finished stage; elsewhere only the
//! lines are written.

use std::io::Write;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::artefact::{read_json, write_json};
use limbeck::progress::{Progress, StageEvent};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::output::{duration, style};

const SPINNER: &str = "  {spinner} {msg}  {elapsed}";
const BAR: &str = "  {spinner} {msg}  {wide_bar} {percent:>3} %  {prefix}";

/// What a stage took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timing {
    /// Name of the stage.
    pub(crate) stage: String,
    /// By the clock, to the millisecond.
    pub(crate) seconds: f64,
    /// Most memory that the process ever held by the end of the stage, in MB; `None` where the system does not tell.
    pub(crate) peak_memory_mb: Option<u64>,
}

/// Speaks on stderr, measures stages, and passes Ctrl-C on.
pub(crate) struct Console {
    quiet: bool,
    started: Instant,
    interrupted: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    stage_started: Instant,
    bar: ProgressBar,
    unit: &'static str,
    /// When the task at hand first told how far it is, and how far that was: a checkpoint may have brought it there.
    begun: Option<(Instant, u64)>,
    timings: Vec<Timing>,
}

impl Console {
    /// Takes over Ctrl-C and SIGTERM: the first asks the library to stop, the second ends the process.
    pub(crate) fn new(quiet: bool) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                process::exit(Exit::Interrupted.into());
            }
            say("stopping at the next safe point; once more to stop at once");
        })
        .context("cannot take over Ctrl-C")?;
        let (started, bar) = (Instant::now(), ProgressBar::hidden());
        let state = State { stage_started: started, bar, unit: "", begun: None, timings: Vec::new() };
        Ok(Self { quiet, started, interrupted, state: Mutex::new(state) })
    }

    /// Takes the bar away; after success says what it took in all. With a run directory, notes what each stage
    /// took in its `timings.json`.
    pub(crate) fn finish(&self, succeeded: bool, run: Option<&Path>) -> limbeck::Result<()> {
        let state = self.state();
        state.bar.finish_and_clear();
        if succeeded {
            let memory = peak_memory_mb().map_or(String::new(), |peak| format!(", peak memory {peak} MB"));
            self.line(&state, &format!("  {:<16} {}{memory}", "in all", duration(self.started.elapsed())));
        }
        match run {
            Some(run) if !state.timings.is_empty() => save_timings(&run.join("timings.json"), &state.timings),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left half-done here is only a bar.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, state: &State, text: &str) {
        if !self.quiet {
            state.bar.suspend(|| say(text));
        }
    }
}

impl Progress for Console {
    fn stage(&self, stage: &str, event: StageEvent) {
        let mut state = self.state();
        match event {
            StageEvent::Started => state.stage_started = Instant::now(),
            StageEvent::Skipped => {
                state.bar.finish_and_clear();
                let style = style::FAINT;
                self.line(&state, &format!("{style}= {stage:<16} unchanged{style:#}"));
            }
            StageEvent::Stale => {
                let style = style::OPEN;
                self.line(&state, &format!("{style}!{style:#} {stage:<16} of earlier inputs, not renewed"));
            }
            StageEvent::Finished => {
                state.bar.finish_and_clear();
                let (elapsed, style) = (state.stage_started.elapsed(), style::GOOD);
                state.timings.push(Timing {
                    stage: stage.to_owned(),
                    seconds: elapsed.as_millis() as f64 / 1000.0,
                    peak_memory_mb: peak_memory_mb(),
                });
                self.line(&state, &format!("{style}✓{style:#} {stage:<16} {}", duration(elapsed)));
            }
        }
    }

    fn task(&self, name: &str, unit: &'static str) {
        let mut state = self.state();
        state.bar.finish_and_clear();
        if self.quiet {
            return;
        }
        // Draws nothing where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(SPINNER).expect("a valid template"));
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        (state.bar, state.unit, state.begun) = (bar, unit, None);
    }

    fn advance(&self, done: u64, total: u64) {
        let state = &mut *self.state();
        if total == 0 || state.bar.is_hidden() {
            return;
        }
        let (since, first) = *state.begun.get_or_insert_with(|| {
            state.bar.set_style(
                ProgressStyle::with_template(BAR).expect("a valid template").progress_chars("=> "),
            );
            (Instant::now(), done)
        });
        state.bar.set_length(total);
        state.bar.set_prefix(pace(
            done.saturating_sub(first),
            since.elapsed(),
            total.saturating_sub(done),
            state.unit,
        ));
        state.bar.set_position(done);
    }

    fn cancelled(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// `440 images/s, 12.0 s left`: the mean rate so far, and the time that the rest takes at that rate; empty
/// before anything is done.
fn pace(done: u64, elapsed: Duration, rest: u64, unit: &str) -> String {
    let rate = done as f64 / elapsed.as_secs_f64();
    match Duration::try_from_secs_f64(rest as f64 / rate) {
        Ok(left) if done > 0 => {
            let digits = usize::from(rate < 10.0);
            format!("{rate:.digits$} {unit}/s, {} left", duration(left))
        }
        _ => String::new(),
    }
}

/// Writes a line to stderr; there is nobody to tell if that fails.
fn say(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Puts these timings over those of earlier calls, whose stages stand.
fn save_timings(path: &Path, timings: &[Timing]) -> limbeck::Result<()> {
    let earlier: Vec<Timing> = if path.exists() { read_json(path).unwrap_or_default() } else { Vec::new() };
    write_json(path, &merged(earlier, timings))
}

/// Earlier stages first, each stage once, with its latest timing.
fn merged(mut timings: Vec<Timing>, latest: &[Timing]) -> Vec<Timing> {
    timings.retain(|old| latest.iter().all(|new| new.stage != old.stage));
    timings.extend_from_slice(latest);
    timings
}

/// The process's peak of resident memory in MB (10^6 bytes), where Linux tells it.
fn peak_memory_mb() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kib * 1024 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(stage: &str, seconds: f64) -> Timing {
        Timing { stage: stage.to_owned(), seconds, peak_memory_mb: None }
    }

    #[test]
    fn the_pace_is_the_mean_rate_and_the_time_left_at_it() {
        // 100 in 4 s are 25 a second; 1500 more take 60 s.
        assert_eq!(pace(100, Duration::from_secs(4), 1500, "images"), "25 images/s, 1 min 0 s left");
        assert_eq!(pace(1, Duration::from_secs(4), 1, "images"), "0.2 images/s, 4.0 s left");
        assert_eq!(pace(0, Duration::from_secs(4), 1500, "images"), "");
        assert_eq!(pace(0, Duration::ZERO, 0, "images"), "");
    }

    #[test]
    fn the_peak_is_read_from_the_line_of_linux() {
        // As printed by Linux 6; 512 MiB = 524288 KiB = 536.870912 MB.
        assert_eq!(parse_peak("Name:\tlimbeck\nVmPeak:\t  900000 kB\nVmHWM:\t  524288 kB\n"), Some(536));
        assert_eq!(parse_peak("Name:\tlimbeck\n"), None);
    }

    #[test]
    fn a_stage_keeps_its_earlier_timing_until_it_is_made_again() {
        let merged = merged(vec![timing("dae", 9.0), timing("audit", 1.0)], &[timing("audit", 2.0)]);
        assert_eq!(merged, [timing("dae", 9.0), timing("audit", 2.0)]);
    }
}
