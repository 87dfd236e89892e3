//! The outcome of an audit: how many, which, and why.

use std::fmt;
use std::path::{Path, PathBuf};

use limbeck::evaluate::results::VerdictCounts;
use limbeck::pipeline::{Outcome, RunConfig};
use limbeck::purify::{Knowledge, Ledger, LedgerRow, Verdict};
use serde::Serialize;

use super::table::Table;
use super::{images, percent, style};
use crate::arguments::{Job, shell_word};

/// How many of the most suspicious images are shown; the ledger has all.
const SHOWN: usize = 10;

/// A ledger in brief.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct AuditSummary {
    /// Images of the audited set.
    pub(crate) images: u64,
    /// Of them above their threshold.
    pub(crate) flagged: u64,
    /// Images of the set that are trusted, and so not audited, under another path or the same.
    trusted_already: u64,
    /// Of them those that are trusted under another class.
    trusted_otherwise: u64,
    /// Images of the set that are left out for `data.limit_per_class`.
    beyond_limit: u64,
    /// Of all images, those decided about by hand.
    decided_by_hand: u64,
    verdicts: VerdictCounts,
    most_suspicious: Vec<Finding>,
    ledger: PathBuf,
    page: PathBuf,
    suspicious: PathBuf,
    /// The table in which decisions can be made by hand.
    decisions: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    purified: Option<PathBuf>,
    /// The command that obeys the decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// What suspicions were held against.
    held_against: &'static str,
    #[serde(skip)]
    poisoned_share: f64,
}

/// One image of the ledger.
#[derive(Debug, PartialEq, Serialize)]
struct Finding {
    path: String,
    label: u32,
    score: f64,
    threshold: f64,
    p_value: f64,
    verdict: Verdict,
    reason: String,
}

impl From<&LedgerRow> for Finding {
    fn from(row: &LedgerRow) -> Self {
        Self {
            path: row.path.clone(),
            label: row.label,
            score: row.suspicion,
            threshold: row.threshold,
            p_value: row.p_value,
            verdict: row.verdict,
            reason: row.reason.clone(),
        }
    }
}

impl AuditSummary {
    /// Of the ledger that lies in the directory of a run with this config.
    pub(crate) fn of(ledger: &Ledger, outcome: &Outcome, run: &Path, config: &RunConfig) -> Self {
        let count = |verdict| ledger.rows.iter().filter(|row| row.verdict == verdict).count() as u64;
        let verdicts = VerdictCounts {
            keep: count(Verdict::Keep),
            reconstruct: count(Verdict::Reconstruct),
            discard: count(Verdict::Discard),
        };
        let mut rows: Vec<&LedgerRow> = ledger.rows.iter().collect();
        rows.sort_by(|a, b| b.suspicion.total_cmp(&a.suspicion).then_with(|| a.path.cmp(&b.path)));
        Self {
            images: ledger.rows.len() as u64,
            flagged: outcome.flagged,
            trusted_already: outcome.known,
            trusted_otherwise: outcome.known_otherwise,
            beyond_limit: outcome.beyond_limit,
            decided_by_hand: outcome.decided,
            verdicts,
            most_suspicious: rows.into_iter().take(SHOWN).map(Finding::from).collect(),
            ledger: run.join("ledger.csv"),
            page: run.join("audit.html"),
            suspicious: run.join("suspicious.csv"),
            decisions: run.join(outcome.decisions.as_deref().unwrap_or("decisions.csv")),
            purified: None,
            next: None,
            held_against: held_against(config),
            poisoned_share: config.poison.plan.fraction,
        }
    }

    /// With the place of the purified set.
    pub(crate) fn with_purified(self, run: &Path) -> Self {
        Self { purified: Some(run.join("purified")), ..self }
    }

    /// With the command that goes on from the same arguments.
    pub(crate) fn with_next(self, job: &Job) -> Self {
        let next = format!(
            "limbeck purify {} --decisions {}",
            job.words(),
            shell_word(&self.decisions.to_string_lossy())
        );
        Self { next: Some(next), ..self }
    }
}

fn held_against(config: &RunConfig) -> &'static str {
    match (config.knowledge.setting, config.data.trusted.is_empty()) {
        (Knowledge::Untrusted, _) => "images of the set that look usual, for none is trusted",
        (Knowledge::Trusted | Knowledge::Oracle, false) => "the images that were named as trusted",
        (Knowledge::Trusted | Knowledge::Oracle, true) => {
            "a random part of the set, taken to be clean (--trusted names images that are, --untrusted trusts none)"
        }
    }
}

impl fmt::Display for AuditSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (style, verdicts) = (style::HEAD, self.verdicts);
        let share = if self.images == 0 { 0.0 } else { self.flagged as f64 / self.images as f64 };
        writeln!(
            f,
            "{style}{} of {} flagged ({}){style:#}",
            self.flagged,
            images(self.images),
            percent(share)
        )?;
        writeln!(
            f,
            "keep {}, reconstruct {}, discard {}",
            verdicts.keep, verdicts.reconstruct, verdicts.discard
        )?;
        writeln!(f, "held against {}", self.held_against)?;
        if self.trusted_already > 0 {
            let relabelled = match self.trusted_otherwise {
                0 => String::new(),
                count => format!(", {count} of them under another class, which they get"),
            };
            writeln!(f, "not audited, for they are trusted: {}{relabelled}", images(self.trusted_already))?;
        }
        if self.beyond_limit > 0 {
            writeln!(
                f,
                "left out by data.limit_per_class, and in no purified set: {}",
                images(self.beyond_limit)
            )?;
        }
        if self.decided_by_hand > 0 {
            writeln!(f, "decided by hand: {}", images(self.decided_by_hand))?;
        }
        if self.poisoned_share > 0.0 {
            writeln!(
                f,
                "the run's own attacker poisoned {} of the set first (poison.plan.fraction)",
                percent(self.poisoned_share)
            )?;
        }
        let mut table = Table::new(["most suspicious", "label", "score", "p-value", "verdict", "reason"])
            .right(1)
            .right(2)
            .right(3);
        for finding in &self.most_suspicious {
            table.row([
                finding.path.clone(),
                finding.label.to_string(),
                figure(finding.score),
                format!("{:.4}", finding.p_value),
                finding.verdict.word().to_owned(),
                finding.reason.clone(),
            ]);
        }
        write!(f, "\n{table}\n")?;
        writeln!(f, "page to look at: {}", self.page.display())?;
        writeln!(f, "every image: {}", self.ledger.display())?;
        if let Some(purified) = &self.purified {
            writeln!(f, "purified set: {}", purified.display())?;
        }
        match &self.next {
            Some(next) => writeln!(
                f,
                "next: look at the page, fill in the column `decision` of {} where you disagree, then\n  {next}",
                self.decisions.display()
            ),
            None => Ok(()),
        }
    }
}

/// Scores are of any size: plain where that shows enough digits.
fn figure(score: f64) -> String {
    if score == 0.0 || (0.01..10_000.0).contains(&score.abs()) {
        format!("{score:.4}")
    } else {
        format!("{score:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use limbeck::pipeline::Preset;

    use super::*;

    fn row(path: &str, suspicion: f64, verdict: Verdict) -> LedgerRow {
        LedgerRow {
            id: String::new(),
            path: path.to_owned(),
            label: 3,
            suspicion,
            p_value: 0.01,
            threshold: 1.0,
            verdict,
            reason: "why".to_owned(),
            scores: Vec::new(),
        }
    }

    fn ledger() -> Ledger {
        let mut rows = vec![
            row("a", 0.5, Verdict::Keep),
            row("b", 3.0, Verdict::Discard),
            row("c", 2.0, Verdict::Reconstruct),
        ];
        rows.extend((0..SHOWN).map(|i| row(&format!("z{i}"), 0.1, Verdict::Keep)));
        Ledger { score_names: Vec::new(), rows }
    }

    fn summary(poisoned_share: f64) -> AuditSummary {
        let decisions = Some("decisions-2.csv".to_owned());
        let outcome = Outcome {
            flagged: 2,
            decided: 1,
            known: 1,
            known_otherwise: 1,
            beyond_limit: 3,
            decisions,
            ..Outcome::default()
        };
        AuditSummary::of(&ledger(), &outcome, Path::new("run"), &config(poisoned_share, "trusted", ""))
    }

    fn config(poisoned_share: f64, knowledge: &str, trusted: &str) -> RunConfig {
        let set = [
            format!("poison.plan.fraction={poisoned_share}"),
            format!("knowledge.setting={knowledge}"),
            format!("data.trusted={trusted}"),
        ];
        RunConfig::resolve(Preset::Audit, None, &set).expect("known keys")
    }

    #[test]
    fn a_random_part_is_not_passed_off_as_images_that_somebody_looked_at() {
        let words = |knowledge, trusted| held_against(&config(0.0, knowledge, trusted));
        assert!(words("trusted", "").contains("random part") && words("trusted", "").contains("--untrusted"));
        assert_eq!(words("trusted", "checked"), "the images that were named as trusted");
        assert!(words("untrusted", "").contains("none is trusted"));
    }

    #[test]
    fn the_most_suspicious_come_first_and_no_more_than_are_shown() {
        let summary = summary(0.0);
        assert_eq!((summary.images, summary.flagged), (13, 2));
        let paths: Vec<&str> = summary.most_suspicious.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["b", "c", "a", "z0", "z1", "z2", "z3", "z4", "z5", "z6"]);
    }

    #[test]
    fn the_text_says_how_many_which_and_why() {
        let summary = summary(0.1).with_purified(Path::new("run"));
        let text = anstream::adapter::strip_str(&summary.to_string()).to_string();
        assert!(
            text.starts_with("2 of 13 images flagged (15.4 %)\nkeep 11, reconstruct 1, discard 1\nheld against a random part of the set"),
            "{text}"
        );
        assert!(text.contains("\ndecided by hand: 1 image\n"), "{text}");
        assert!(
            text.contains(
                "they are trusted: 1 image, 1 of them under another class, which they get\nleft out by"
            ),
            "{text}"
        );
        assert!(text.contains("in no purified set: 3 images\n"), "{text}");
        assert!(text.contains("poisoned 10.0 % of the set first"), "{text}");
        assert!(text.contains("b                    3  3.0000   0.0100  discard      why\n"), "{text}");
        assert!(text.contains("ledger.csv\npurified set: "), "{text}");
    }
}
