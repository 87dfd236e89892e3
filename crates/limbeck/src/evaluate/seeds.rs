//! The figures of runs that differ in their seed alone: mean, spread, and an interval that covers the randomness of training.
//!
//! The interval is Student's at 95 %: mean ± t · s/√n over n runs, with n − 1 degrees of freedom (Student 1908). With three runs t is 4.3, so that it is wide: that is
//! what three runs say.

use serde::Serialize;

use super::results::{
    AbstentionSummary, Evaluation, ModelRow, Rate, Robustness, StudentEvaluation, defence_effectiveness,
};
use crate::error::{Error, Result};

/// The figures of several runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedSummary {
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// All figures that every run has.
    pub figures: Vec<SeedFigure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedFigure {
    /// Which part of the evaluation: "held out", "model".
    pub group: String,
    /// What: "i-fgsm eps 0.01: AUROC of head".
    pub name: String,
    /// What it is a number of.
    pub scale: Scale,
    /// Of each run, in the order of the seeds.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Student's 95 % interval of the mean, cut to what the scale has.
    pub interval: [f64; 2],
}

/// What a figure is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// A share of images in `[0, 1]`, for people in percent.
    Share,
    /// An area or an error in `[0, 1]`.
    Unit,
    /// Any number.
    Open,
}

/// 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom (scipy 1.17.1, `t.ppf(0.975, df)`); beyond, that of 30 errs on the wide side.
const STUDENT: [f64; 30] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
    2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
    2.0518, 2.0484, 2.0452, 2.0423,
];

/// What a run says of itself, and its figures.
#[derive(Clone, Debug)]
pub struct SeedRun {
    limbeck_version: String,
    revision: u32,
    config_toml: String,
    seed: u64,
    is_audited: bool,
    decided_by_hand: u64,
    figures: Vec<Figure>,
}

impl From<&Evaluation> for SeedRun {
    fn from(run: &Evaluation) -> Self {
        Self {
            limbeck_version: run.limbeck_version.clone(),
            revision: run.revision,
            config_toml: run.config_toml.clone(),
            seed: run.seed,
            is_audited: true,
            decided_by_hand: run.decided_by_hand,
            figures: figures(&[
                ("audit", &|found| audit(run, found)),
                ("held out", &|found| held_out(run, found)),
                ("autoencoder", &|found| autoencoder(run, found)),
                ("filter", &|found| filters(run, found)),
                ("model", &|found| {
                    models(&run.models, &run.robustness, found);
                    shield(run, found);
                }),
                ("null answer", &|found| abstention(&run.abstention, found)),
            ]),
        }
    }
}

impl From<&StudentEvaluation> for SeedRun {
    fn from(run: &StudentEvaluation) -> Self {
        Self {
            limbeck_version: run.limbeck_version.clone(),
            revision: run.revision,
            config_toml: run.config_toml.clone(),
            seed: run.seed,
            is_audited: false,
            decided_by_hand: 0,
            figures: figures(&[
                ("model", &|found| models(&run.models, &run.robustness, found)),
                ("null answer", &|found| abstention(&run.abstention, found)),
            ]),
        }
    }
}

/// Sums up runs that were made with the same settings and different seeds.
///
/// # Errors
/// Refuses fewer than two runs, two of one seed or of different versions, runs with an audit among runs without, and settings that differ in more than the seed, by their key.
pub fn over_seeds(runs: &[SeedRun]) -> Result<SeedSummary> {
    let refused = |found: String, expected: &str| Error::input("seeds", found, expected);
    let [first, others @ ..] = runs else { return Err(refused("no run".to_owned(), "two or more runs")) };
    if others.is_empty() {
        return Err(refused("one run".to_owned(), "two or more runs"));
    }
    if let Some(run) = runs.iter().find(|run| run.decided_by_hand > 0) {
        let found = format!("a run of seed {} with {} decisions by hand", run.seed, run.decided_by_hand);
        return Err(refused(
            found,
            "runs as limbeck decided them (limbeck purify DATA --out RUN --forget-decisions)",
        ));
    }
    let settings = settings(first)?;
    for run in others {
        if run.limbeck_version != first.limbeck_version {
            let found = format!("runs of versions {} and {}", first.limbeck_version, run.limbeck_version);
            return Err(refused(found, "runs of one version"));
        }
        if run.is_audited != first.is_audited {
            return Err(refused("runs with an audit and without".to_owned(), "runs of one kind"));
        }
        if run.revision != first.revision {
            let found = format!("runs of revisions {} and {}", first.revision, run.revision);
            return Err(refused(found, "runs of one build (limbeck report RUN renews what is older)"));
        }
        if let Some((key, [a, b])) = first_difference(&settings, &self::settings(run)?) {
            return Err(refused(
                format!("runs with {key} = {a} and {b}"),
                "runs that differ in `seed` alone",
            ));
        }
    }
    let seeds: Vec<u64> = runs.iter().map(|run| run.seed).collect();
    if let Some(seed) = seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed)) {
        return Err(refused(format!("two runs of seed {}", seed.1), "runs of different seeds"));
    }
    let found = first.figures.iter().filter_map(|figure| {
        let same = |run: &SeedRun| run.figures.iter().find(|other| other.is(figure)).map(|other| other.value);
        let values = runs.iter().map(same).collect::<Option<Vec<f64>>>()?;
        let (mean, interval) = student(&values);
        let Figure { group, name, scale, .. } = figure.clone();
        let interval = match scale {
            Scale::Share | Scale::Unit => interval.map(|bound| bound.clamp(0.0, 1.0)),
            Scale::Open => interval,
        };
        Some(SeedFigure { group: group.to_owned(), name, scale, values, mean, interval })
    });
    Ok(SeedSummary { figures: found.collect(), seeds })
}

/// Mean of two values or more, and its interval.
fn student(values: &[f64]) -> (f64, [f64; 2]) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let quantile = STUDENT[(values.len() - 2).min(STUDENT.len() - 1)];
    let half = quantile * (variance / count).sqrt();
    (mean, [mean - half, mean + half])
}

/// A run's settings without its seed, one line a key.
fn settings(run: &SeedRun) -> Result<Vec<(String, String)>> {
    let table: toml::Table = toml::from_str(&run.config_toml).map_err(|error| {
        Error::input("seeds", format!("settings that cannot be read ({error})"), "those of a limbeck run")
    })?;
    let mut lines = Vec::new();
    flatten("", &toml::Value::Table(table), &mut lines);
    lines.retain(|(key, _)| key != "seed");
    Ok(lines)
}

fn flatten(key: &str, value: &toml::Value, lines: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, lines);
            }
        }
        value => lines.push((key.to_owned(), value.to_string())),
    }
}

/// The first key whose values differ.
fn first_difference(a: &[(String, String)], b: &[(String, String)]) -> Option<(String, [String; 2])> {
    let of = |lines: &[(String, String)], key: &str| {
        let found = lines.iter().find(|(name, _)| name == key);
        found.map_or("nothing".to_owned(), |(_, value)| value.clone())
    };
    let keys = a.iter().chain(b).map(|(key, _)| key);
    keys.map(|key| (key.clone(), [of(a, key), of(b, key)])).find(|(_, [a, b])| a != b)
}

/// A figure of one run.
#[derive(Clone, Debug)]
struct Figure {
    group: &'static str,
    name: String,
    value: f64,
    scale: Scale,
}

impl Figure {
    fn is(&self, other: &Self) -> bool {
        (self.group, &self.name) == (other.group, &other.name)
    }
}

/// Collects figures of a part of the evaluation.
struct Collected {
    group: &'static str,
    figures: Vec<Figure>,
}

impl Collected {
    fn share(&mut self, name: impl Into<String>, rate: Rate) {
        if let Some(value) = rate.share() {
            self.add(name, value, Scale::Share);
        }
    }

    fn add(&mut self, name: impl Into<String>, value: f64, scale: Scale) {
        self.figures.push(Figure { group: self.group, name: name.into(), value, scale });
    }
}

/// A part of an evaluation: its name, and what collects its figures.
type Part<'a> = (&'static str, &'a dyn Fn(&mut Collected));

fn figures(parts: &[Part<'_>]) -> Vec<Figure> {
    let collect = |&(group, part): &Part<'_>| {
        let mut found = Collected { group, figures: Vec::new() };
        part(&mut found);
        found.figures
    };
    parts.iter().flat_map(collect).collect()
}

fn audit(run: &Evaluation, found: &mut Collected) {
    for row in &run.detection {
        found.add(format!("AUROC of {}", row.score), row.auroc, Scale::Unit);
        if row.decides {
            found.add("recall at 1 % false positives", row.recall_at_1_percent, Scale::Share);
            found.share("poison found", row.recall);
            found.share("clean images flagged", row.false_positives);
        }
    }
    let verdicts = &run.verdicts;
    let trials = verdicts.keep + verdicts.reconstruct + verdicts.discard;
    found.share("images discarded", Rate { successes: verdicts.discard, trials });
}

fn held_out(run: &Evaluation, found: &mut Collected) {
    let Some(held_out) = &run.held_out else { return };
    found.share("clean images flagged", held_out.clean);
    let deciding = &held_out.decides;
    for attack in &held_out.attacks {
        for (score, auroc) in held_out.scores.iter().zip(&attack.auroc) {
            if score == "head" || score == deciding {
                found.add(format!("{}: AUROC of {score}", attack.attack), *auroc, Scale::Unit);
            }
        }
        found.add(format!("{}: recall at 1 %", attack.attack), attack.recall_at_1_percent, Scale::Share);
        found.share(format!("{}: flagged", attack.attack), attack.flagged);
        found.share(format!("{}: called crafted", attack.attack), attack.called_crafted);
        if attack.knows_detector {
            found.share(format!("{}: fools and is not flagged", attack.attack), attack.evaded);
        }
    }
    for damage in &held_out.honest {
        found.share(format!("{}: flagged", damage.damage), damage.flagged);
        found.share(format!("{}: called crafted", damage.damage), damage.called_crafted);
    }
}

fn autoencoder(run: &Evaluation, found: &mut Collected) {
    for (name, value) in [
        ("PSNR of attacked images, dB", run.dae.attacked_psnr),
        ("PSNR restored, dB", run.dae.restored_psnr),
        ("SSIM of attacked images", run.dae.attacked_ssim),
        ("SSIM restored", run.dae.restored_ssim),
    ] {
        value.into_iter().for_each(|value| found.add(name, value, Scale::Open));
    }
}

fn filters(run: &Evaluation, found: &mut Collected) {
    for control in &run.controls {
        found.share(format!("{}: clean accuracy", control.filter), control.clean);
        if let Some(rate) = control.backdoor {
            found.share(format!("{}: attack success rate", control.filter), rate);
        }
        if let Some(rating) = run.controls.first().and_then(|none| defence_effectiveness(none, control)) {
            found.add(format!("{}: defence effectiveness (DER)", control.filter), rating, Scale::Open);
        }
    }
}

fn models(rows: &[ModelRow], robustness: &Robustness, found: &mut Collected) {
    for model in rows {
        found.share(format!("{}: clean", model.model), model.clean);
        for attack in &model.attacked {
            found.share(format!("{}: {}", model.model, attack.attack), attack.accuracy);
        }
        for other in &model.transferred {
            for (attack, accuracy) in other.labelled() {
                found.share(format!("{}: {attack}", model.model), accuracy);
            }
        }
    }
    for case in &robustness.worst_cases {
        let threat = super::threat_label(crate::attack::ThreatModel { norm: case.norm, eps: case.eps });
        found.share(format!("{}: worst case, {threat}", case.model), case.accuracy);
    }
    for calibration in &robustness.calibration {
        // The temperature in the name differs from run to run.
        let name = calibration.model.split(" to T").next().unwrap_or(&calibration.model);
        if let Some(error) = calibration.error {
            found.add(format!("{name}: expected calibration error"), error, Scale::Unit);
        }
    }
}

fn shield(run: &Evaluation, found: &mut Collected) {
    for row in run.shield.iter().flat_map(|shield| &shield.rows) {
        found.share(format!("student behind the autoencoder: {}, worst case", row.attack), row.worst);
    }
}

fn abstention(null: &AbstentionSummary, found: &mut Collected) {
    for row in null.outcomes.iter().chain(&null.damaged) {
        let trials = row.right + row.wrong + row.null;
        for (words, successes) in [("right", row.right), ("wrong", row.wrong), ("null", row.null)] {
            found.share(format!("{}: {words}", row.inputs), Rate { successes, trials });
        }
    }
    for row in &null.compared {
        found.add(format!("AURC of {}", row.uncertainty), row.aurc, Scale::Unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// A run of this seed whose first filter leaves this many images right.
    fn run(seed: u64, right: u64) -> Evaluation {
        let mut run = sample::evaluation();
        (run.seed, run.config_toml) = (seed, format!("seed = {seed}\n\n[purify]\nkl_temperature = 1.0\n"));
        run.controls[0].clean = Rate { successes: right, trials: 100 };
        run
    }

    fn of(runs: &[Evaluation]) -> Result<SeedSummary> {
        over_seeds(&runs.iter().map(SeedRun::from).collect::<Vec<_>>())
    }

    /// What a run of this seed without an audit says of the same models.
    fn as_is(seed: u64, right: u64) -> SeedRun {
        let Evaluation { config_toml, models, .. } = run(seed, right);
        SeedRun::from(&StudentEvaluation { seed, config_toml, models, ..sample::student_evaluation() })
    }

    #[test]
    fn runs_without_an_audit_have_the_figures_of_their_models_and_are_not_mixed_with_others() {
        let found = over_seeds(&[as_is(1, 90), as_is(2, 92)]).expect("summed up").figures;
        let groups: Vec<&str> = found.iter().map(|figure| figure.group.as_str()).collect();
        assert!(groups.contains(&"model") && groups.contains(&"null answer"), "{groups:?}");
        assert!(!groups.contains(&"audit") && !groups.contains(&"filter"), "{groups:?}");
        let mixed = over_seeds(&[as_is(1, 90), SeedRun::from(&run(2, 92))]).expect_err("mixed").to_string();
        assert!(mixed.contains("with an audit and without"), "{mixed}");
    }

    #[test]
    fn the_interval_is_student_s() {
        // scipy 1.17.1: t.interval(0.95, 2, [0.9, 0.92, 0.97].mean, sem([0.9, 0.92, 0.97]))
        let found = of(&[run(1, 90), run(2, 92), run(3, 97)]).expect("summed up");
        assert_eq!(found.seeds, [1, 2, 3]);
        let name = format!("{}: clean accuracy", sample::evaluation().controls[0].filter);
        let figure = found.figures.iter().find(|figure| figure.name == name).expect("it is there");
        assert!((figure.mean - 0.93).abs() < 1e-12 && figure.values == [0.90, 0.92, 0.97]);
        assert!((figure.interval[0] - 0.840_433).abs() < 1e-4 && figure.interval[1] == 1.0, "{figure:?}");
        // What does not vary has an interval of no width.
        let same = found.figures.iter().find(|figure| figure.group == "autoencoder").expect("it is there");
        assert_eq!(same.interval, [same.mean; 2]);
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let found = of(&[run(1, 90), run(2, 92)]).expect("summed up").figures;
        for (at, figure) in found.iter().enumerate() {
            let same = |other: &&SeedFigure| (&other.group, &other.name) == (&figure.group, &figure.name);
            assert_eq!(found[..at].iter().filter(same).count(), 0, "{} {}", figure.group, figure.name);
            assert!(figure.values.iter().all(|value| value.is_finite()), "{figure:?}");
        }
    }

    #[test]
    fn runs_that_cannot_be_summed_up_are_refused_by_what_differs() {
        let refusal = |runs: &[Evaluation]| of(runs).expect_err("refused").to_string();
        assert!(refusal(&[run(1, 90)]).contains("one run"));
        assert!(refusal(&[run(1, 90), run(1, 90)]).contains("two runs of seed 1"));
        let by_hand = Evaluation { decided_by_hand: 3, ..run(2, 90) };
        assert!(refusal(&[run(1, 90), by_hand]).contains("seed 2 with 3 decisions by hand"));
        let mut other = run(2, 90);
        other.config_toml = other.config_toml.replace("1.0", "2.0");
        assert!(refusal(&[run(1, 90), other]).contains("purify.kl_temperature = 1.0 and 2.0"));
        let mut other = run(2, 90);
        other.limbeck_version = "0.0.1".to_owned();
        assert!(refusal(&[run(1, 90), other]).contains("0.0.1"));
    }
}
