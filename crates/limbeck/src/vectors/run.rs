//! The run: read, split, poison if asked to, audit, purify, distil, measure, write. In memory until the end, so that what fails leaves nothing behind.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::audit::{Judgement, audit};
use super::autoencoder::TrainedVectorAutoencoder;
use super::config::{TaskChoice, VectorConfig, VectorPoisonKind};
use super::denoise::train_vector_autoencoder;
use super::distil::{Distilled, distil};
use super::doubt::{VectorNull, half_widths};
use super::filters::{Bench, judged_by_truth};
use super::folder::{Folder, Staging};
use super::known::KnownRows;
use super::learn::{Lesson, School, outputs_of, train_mlp};
use super::ledger::write_ledger;
use super::measure::Measure;
use super::network::{MlpSpec, TrainedMlp};
use super::poison::{Poisoned, Surrogate, poisoned, write_truth};
use super::results::{AuditFigures, IntervalFigures, ModelFigures, PoisonFigures, RowCounts, VectorResults};
use super::scale::{AnswerScale, Answers, InputScale};
use super::set::VectorSet;
use super::split::{Apart, Split};
use super::table::{Columns, RowEdit, Table, listed};
use crate::artefact::{write_atomically, write_json};
use crate::distill::{StudentLesson, perturbed};
use crate::error::{Error, Result};
use crate::evaluate::results::{Rate, VerdictCounts};
use crate::progress::Progress;
use crate::purify::Verdict;
use crate::report::render_vectors;
use crate::rng::Seed;

/// The tables of a run.
struct Tables {
    data: Table,
    trusted: Option<Table>,
    test: Option<Table>,
}

/// Rows by their part, scaled, and how they are. Targets of audited rows are clipped, for networks learn from them; those that are measured by are not.
struct Parts {
    audited: VectorSet,
    trusted: VectorSet,
    calibration: VectorSet,
    test: VectorSet,
    spec: MlpSpec,
}

/// Does all of it and writes it to `out`: a new or empty folder, or one of an earlier run.
///
/// Same config, same bytes.
///
/// # Errors
/// Refuses settings out of range, tables that cannot be meant (see [`Table`]), and folders that hold something else; on any error what lies in the folder is as it was.
pub fn run_vectors(
    config: &VectorConfig,
    out: &Path,
    device: &Device,
    progress: &dyn Progress,
) -> Result<VectorResults> {
    config.check()?;
    let inputs = [&config.data.path, &config.data.trusted, &config.data.test];
    let inputs: Vec<PathBuf> =
        inputs.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let folder = Folder::check(out, &inputs)?;
    let tables = Tables::read(config)?;
    let run = VectorRun {
        config,
        seed: Seed::new(config.seed),
        device: device.clone().without_autodiff(),
        progress,
    };
    // First, so that a place that cannot be written to is found out before the work is done.
    let staging = folder.staging()?;
    let done = run.execute(&tables)?;
    done.write(&staging, config, &tables)?;
    staging.commit()?;
    Ok(done.results)
}

impl Tables {
    fn read(config: &VectorConfig) -> Result<Self> {
        let columns = Columns { target: &config.data.target, ignore: &config.data.ignore };
        let data = Table::read(Path::new(&config.data.path), columns)?;
        let own = |path: &str| -> Result<Option<Table>> {
            if path.is_empty() {
                return Ok(None);
            }
            let table = Table::read_part(Path::new(path), columns)?;
            if table.features() != data.features() {
                let [own, others] = [table.features(), data.features()];
                let expected = format!(
                    "the {} of {}, in their order: {}",
                    others.len(),
                    config.data.path,
                    listed(&others)
                );
                let found = format!("{} feature columns: {}", own.len(), listed(&own));
                return Err(Error::data(path, found, expected));
            }
            Ok(Some(table))
        };
        let (trusted, test) = (own(&config.data.trusted)?, own(&config.data.test)?);
        Ok(Self { data, trusted, test })
    }

    /// The table that trusted rows are in, and that of test rows.
    fn homes<'a>(&'a self, data: &'a Table) -> [&'a Table; 2] {
        [self.trusted.as_ref().unwrap_or(data), self.test.as_ref().unwrap_or(data)]
    }
}

/// What a run works with.
struct VectorRun<'a> {
    config: &'a VectorConfig,
    seed: Seed,
    device: Device,
    progress: &'a dyn Progress,
}

/// Everything that is written.
struct Done {
    /// As the audit got it.
    table: Table,
    split: Split,
    poisoned: Option<Poisoned>,
    judgement: Judgement,
    purified: Table,
    undefended: TrainedMlp,
    autoencoder: TrainedVectorAutoencoder,
    distilled: Distilled,
    results: VectorResults,
}

impl VectorRun<'_> {
    fn school(&self) -> School<'_> {
        School { train: &self.config.network.train, device: &self.device, progress: self.progress }
    }

    /// The split is drawn before the attacker comes, and knows no values.
    fn execute(&self, tables: &Tables) -> Result<Done> {
        let apart = Apart { trusted: tables.trusted.as_ref().map(Table::rows), test: tables.test.is_some() };
        let are_numbers = self.config.data.task != TaskChoice::Classification;
        let known = KnownRows::of(&tables.data, tables.trusted.as_ref(), tables.test.as_ref(), are_numbers);
        let candidates = known.others(tables.data.rows());
        let split = Split::draw(candidates, apart, &self.config.data.split, self.seed.child("split"))?;
        let clean = self.parts(tables, &tables.data, &split)?;
        let classes = clean.spec.answers.classes();
        self.config.check_attacks_for(classes)?;
        self.config.distill.check_for(classes)?;
        let poisoned = self.poisoned(tables, &split, &clean)?;
        let (table, parts) = match &poisoned {
            Some(poisoned) => (poisoned.table.clone(), self.parts(tables, &poisoned.table, &split)?),
            None => (tables.data.clone(), clean),
        };
        let seed = self.seed.child("undefended");
        let all = parts.audited.joined(&parts.trusted);
        let lesson = Lesson::plain(&all);
        let task = "training the undefended network";
        let undefended = train_mlp(parts.spec.clone(), lesson, self.school(), seed, task)?;
        let autoencoder = train_vector_autoencoder(
            &all,
            &undefended,
            &self.config.dae,
            self.seed.child("dae"),
            self.progress,
        )?;
        let judgement = audit(
            &parts.audited,
            &parts.trusted,
            &autoencoder,
            &parts.spec,
            &self.config.audit,
            self.school(),
            self.seed.child("audit"),
        )?;
        let (purified, learnt) = self.purified(&table, &split, &known, &parts, &judgement)?;
        let student_seed = self.seed.child("distil");
        let distilled = distil(&learnt, &parts.spec, &self.config.distill, self.school(), student_seed)?;
        let measured = Measured { parts: &parts, undefended: &undefended, distilled: &distilled };
        let results =
            self.results(tables, &split, &known, &poisoned, &judgement, &learnt, &measured, seed)?;
        Ok(Done { table, split, poisoned, judgement, purified, undefended, autoencoder, distilled, results })
    }

    /// Units come from the trusted rows that networks learn from, ranges by a bounded share from audited ones too.
    fn parts(&self, tables: &Tables, data: &Table, split: &Split) -> Result<Parts> {
        let [trusted_home, test_home] = tables.homes(data);
        let (audited, trusted) = (&split.audited, &split.trusted);
        let inputs = InputScale::fit(
            data.features(),
            audited.iter().map(|&row| data.values(row)),
            trusted.iter().map(|&row| trusted_home.values(row)),
        );
        let homes: Vec<&Table> =
            [Some(data), tables.trusted.as_ref(), tables.test.as_ref()].into_iter().flatten().collect();
        let answers =
            AnswerScale::fit(&homes, self.config.data.task, (data, audited), (trusted_home, trusted))?;
        let all: Vec<usize> = (0..test_home.rows()).collect();
        let tested = if tables.test.is_some() { &all } else { &split.test };
        let set = |table: &Table, rows: &[usize]| VectorSet::of(table, rows, &inputs, &answers);
        let trusted = set(trusted_home, trusted)?;
        Ok(Parts {
            audited: set(data, audited)?.clipped_by(&trusted),
            trusted,
            calibration: set(trusted_home, &split.calibration)?,
            test: set(test_home, tested)?,
            spec: MlpSpec {
                hidden: self.config.network.hidden.clone(),
                dropout: self.config.network.dropout,
                temperature: 1.0,
                inputs: inputs.clone(),
                answers: answers.clone(),
            },
        })
    }

    fn poisoned(&self, tables: &Tables, split: &Split, clean: &Parts) -> Result<Option<Poisoned>> {
        let rows = clean.audited.joined(&clean.trusted);
        let surrogate = Surrogate { rows: &rows, spec: &clean.spec, school: self.school() };
        poisoned(&tables.data, &split.audited, &self.config.poison, &surrogate, self.seed.child("poison"))
    }

    /// The table without discarded and test rows, flagged ones reconstructed as judged, those that are trusted with their trusted targets; and what teacher and student learn from, as it stands there.
    fn purified(
        &self,
        table: &Table,
        split: &Split,
        known: &KnownRows,
        parts: &Parts,
        found: &Judgement,
    ) -> Result<(Table, VectorSet)> {
        let inputs = &parts.spec.inputs;
        let width = inputs.names.len();
        let mut edits = vec![RowEdit::Keep; table.rows()];
        known.edits().for_each(|(row, edit)| edits[row] = edit.clone());
        split.test.iter().for_each(|&row| edits[row] = RowEdit::Drop);
        for (place, (&row, judged)) in split.audited.iter().zip(&found.rows).enumerate() {
            edits[row] = match judged.verdict {
                Verdict::Keep => RowEdit::Keep,
                Verdict::Discard => RowEdit::Drop,
                Verdict::Reconstruct => {
                    RowEdit::Features(inputs.unscaled(&found.reconstructions[place * width..][..width]))
                }
            };
        }
        let purified = table.edited(&edits, true)?;
        let kept = (0..table.rows()).filter(|&row| edits[row] != RowEdit::Drop);
        let places: Vec<usize> = kept
            .enumerate()
            .filter(|(_, row)| split.audited.binary_search(row).is_ok())
            .map(|(at, _)| at)
            .collect();
        let audited = VectorSet::of(&purified, &places, inputs, &parts.spec.answers)?;
        Ok((purified, audited.clipped_by(&parts.trusted).joined(&parts.trusted)))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different kind of thing; a bundle would only rename them"
    )]
    fn results(
        &self,
        tables: &Tables,
        split: &Split,
        known: &KnownRows,
        poisoned: &Option<Poisoned>,
        judgement: &Judgement,
        learnt: &VectorSet,
        measured: &Measured<'_>,
        undefended_seed: Seed,
    ) -> Result<VectorResults> {
        let Measured { parts, undefended, distilled } = *measured;
        let config = self.config;
        let null = VectorNull::calibrate(
            &distilled.student,
            &distilled.references,
            &parts.calibration,
            &config.abstention,
            config.seed,
        )?;
        let measure = Measure {
            test: &parts.test,
            attacks: &config.evaluate.attacks,
            resamples: config.evaluate.resamples,
            seed: self.seed.child("measure"),
            progress: self.progress,
        };
        let models = self.models(&measure, measured, &null)?;
        let bench = Bench {
            audited: &parts.audited,
            trusted: &parts.trusted,
            purified: learnt,
            spec: &parts.spec,
            school: self.school(),
            measure: &measure,
            seed: undefended_seed,
        };
        let judged = |poisoned: &Poisoned| -> Result<PoisonFigures> {
            let clean = measure.clean(undefended)?;
            judged_by_truth(self.poison_words(), &poisoned.truth, judgement, clean, &bench)
        };
        Ok(VectorResults {
            limbeck_version: crate::VERSION.to_owned(),
            data: file_name(tables.data.path()),
            seed: config.seed,
            target: tables.data.targets(),
            classes: match &parts.spec.answers {
                AnswerScale::Classes { names } => names.clone(),
                AnswerScale::Values { .. } => Vec::new(),
            },
            features: parts.spec.inputs.names.len() as u64,
            rows: RowCounts {
                table: tables.data.rows() as u64,
                known: known.count() as u64,
                audited: split.audited.len() as u64,
                trusted: split.trusted.len() as u64,
                calibration: split.calibration.len() as u64,
                test: parts.test.len() as u64,
                purified: learnt.len() as u64,
            },
            audit: audit_figures(judgement, split.trusted.len()),
            models,
            intervals: intervals(&distilled.student, parts, config.interval.miss)?,
            null,
            poison: poisoned.as_ref().map(judged).transpose()?,
        })
    }

    fn models(
        &self,
        measure: &Measure<'_>,
        measured: &Measured<'_>,
        null: &VectorNull,
    ) -> Result<Vec<ModelFigures>> {
        let Distilled { teacher, student, .. } = measured.distilled;
        let distill = self.config.distill.as_of_images();
        let is_classification = student.spec().answers.classes().is_some();
        let answers = match (distill.method.row().lesson, is_classification) {
            (StudentLesson::Labels, _) => "",
            (_, false) => " with the teacher's outputs",
            (StudentLesson::RobustDistillation, true) => " and the teacher's answers to them",
            (_, true) => " with the teacher's soft labels",
        };
        let table = "the audited rows as they come, and trusted ones";
        let mut models = vec![measure.model("undefended", table, measured.undefended, None)?];
        if let Some(teacher) = teacher {
            let table = format!("the purified rows{}", perturbed(distill.teacher_crafting()));
            models.push(measure.model("teacher", &table, teacher, None)?);
        }
        let table = format!("the purified rows{answers}{}", perturbed(distill.student_crafting()));
        models.push(measure.model("student", &table, student, Some(null))?);
        Ok(models)
    }

    fn poison_words(&self) -> String {
        let poison = &self.config.poison;
        match poison.kind {
            VectorPoisonKind::Adversarial => {
                format!("i-fgsm eps {} on a surrogate, target kept", crate::text::number(poison.eps))
            }
            _ => "flipped targets".to_owned(),
        }
    }
}

/// The networks to be measured, and the rows that they are measured with.
#[derive(Clone, Copy)]
struct Measured<'a> {
    parts: &'a Parts,
    undefended: &'a TrainedMlp,
    distilled: &'a Distilled,
}

fn audit_figures(found: &Judgement, trusted: usize) -> AuditFigures {
    let count = |verdict| found.rows.iter().filter(|row| row.verdict == verdict).count() as u64;
    AuditFigures {
        flagged: Rate::of(found.rows.iter().map(super::audit::RowJudgement::is_flagged)),
        trusted_flagged: Rate { successes: found.trusted_flagged as u64, trials: trusted as u64 },
        threshold: found.threshold.value(),
        verdicts: VerdictCounts {
            keep: count(Verdict::Keep),
            reconstruct: count(Verdict::Reconstruct),
            discard: count(Verdict::Discard),
        },
    }
}

/// The student's prediction intervals with their coverage of the test rows.
fn intervals(student: &TrainedMlp, parts: &Parts, miss: f64) -> Result<Option<Vec<IntervalFigures>>> {
    let answers = &student.spec().answers;
    let AnswerScale::Values { names, deviation, .. } = answers else { return Ok(None) };
    let Some(widths) =
        half_widths(&outputs_of(student, &parts.calibration)?, &parts.calibration, answers, miss)?
    else {
        return Ok(None);
    };
    let Answers::Values(targets, outputs) = parts.test.answers() else { return Ok(None) };
    let found = outputs_of(student, &parts.test)?;
    let figures = |(place, name): (usize, &String)| IntervalFigures {
        output: name.clone(),
        half_width: widths[place],
        miss,
        coverage: Rate::of((0..parts.test.len()).map(|row| {
            let at = row * outputs + place;
            f64::from(found[at] - targets[at]).abs() * deviation[place] <= widths[place]
        })),
    };
    Ok(Some(names.iter().enumerate().map(figures).collect()))
}

impl Done {
    fn write(&self, folder: &Staging, config: &VectorConfig, tables: &Tables) -> Result<()> {
        let text = |name: &str, text: &str| {
            let path = folder.file(name);
            write_atomically(&path, |out| out.write_all(text.as_bytes()).map_err(Error::io("write", &path)))
        };
        text("config.toml", &config.with_absolute_paths().to_toml())?;
        write_ledger(&folder.file("ledger.csv"), &self.table, &self.split.audited, &self.judgement)?;
        if let Some(poisoned) = &self.poisoned {
            write_truth(&folder.file("poison_truth.csv"), &tables.data, &self.split.audited, poisoned)?;
        }
        self.purified.write(&folder.file(&format!("purified.{}", self.purified.ending())))?;
        self.undefended.save(&folder.file("undefended.safetensors"))?;
        self.autoencoder.save(&folder.file("dae.safetensors"))?;
        if let Some(teacher) = &self.distilled.teacher {
            teacher.save(&folder.file("teacher.safetensors"))?;
        }
        self.distilled.student.save(&folder.file("student.safetensors"))?;
        write_json(&folder.file("evaluation.json"), &self.results)?;
        text("report.html", &render_vectors(&self.results)?)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
