//! One function a command: resolve the settings, call the library, print what it says.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Error as UsageError};
use clap_complete::{Shell, generate};
use limbeck::artefact::{read_json, write_atomically};
use limbeck::evaluate::results::{Evaluation, StudentEvaluation};
use limbeck::evaluate::{SeedRun, over_seeds};
use limbeck::pipeline::{self, ByHand, Goal, MeasuredOn, Outcome, Preset, Run, RunConfig, Student};
use limbeck::poison::PoisonConfig;
use limbeck::speed;
use limbeck::tune::{Space, TuneConfig, tune as search};
use limbeck::vectors::{VectorStudent, run_vectors};
use serde_json::json;

use crate::arguments::{
    Arguments, AuditArguments, Command, ConfigCommand, ConfigSource, DistilArguments, EvaluateArguments, Job,
    PEAK, PoisonArguments, PredictArguments, PurifyArguments, ReportArguments, RunArguments, SeedsArguments,
    Session, Settings, SpeedArguments, TrainArguments, TuneArguments, VectorsArguments, shell_word,
};
use crate::commented::commented_toml;
use crate::exit::Exit;
use crate::output::{self, AuditSummary, SpeedRow, print};
use crate::progress::Console;

/// Does what the command line asks for.
pub(crate) fn execute(command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Audit(arguments) => return audit(arguments),
        Command::Run(arguments) => run(arguments),
        Command::Purify(arguments) => purify(arguments),
        Command::Distil(arguments) => distil(arguments),
        Command::Evaluate(arguments) => evaluate(arguments),
        Command::Report(arguments) => report(arguments),
        Command::Seeds(arguments) => seeds(arguments),
        Command::Poison(arguments) => poison(arguments),
        Command::Train(arguments) => train(arguments),
        Command::Tune(arguments) => tune(arguments),
        Command::Predict(arguments) => predict(arguments),
        Command::Vectors(arguments) => vectors(arguments),
        Command::Speed(arguments) => speed(arguments),
        Command::Config(command) => config(command),
        Command::Completions { shell } => completions(*shell),
    }?;
    Ok(Exit::Done)
}

fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let RunArguments { data, out, settings, session } = arguments;
    let config = settings.resolve(data.as_deref(), Preset::Audit)?;
    let outcome = in_run(out, config, session, |run| run.execute(Goal::Report))?;
    print_evaluation(&outcome, session, Some(&out.join("report.html")))
}

fn audit(arguments: &AuditArguments) -> anyhow::Result<Exit> {
    let summary = audited(&arguments.job, Goal::Audit, ByHand::Kept)?.with_next(&arguments.job);
    print_summary(&summary, &arguments.job.session)?;
    let exceeded = arguments.fail_on.is_some_and(|most| most.is_exceeded(summary.flagged, summary.images));
    Ok(if exceeded { Exit::Findings } else { Exit::Done })
}

fn purify(arguments: &PurifyArguments) -> anyhow::Result<()> {
    let by_hand = match (&arguments.decisions, arguments.forget_decisions) {
        (Some(file), _) => ByHand::File(file.clone()),
        (None, true) => ByHand::Forgotten,
        (None, false) => ByHand::Kept,
    };
    let summary = audited(&arguments.job, Goal::Purify, by_hand)?.with_purified(&arguments.job.out);
    print_summary(&summary, &arguments.job.session)
}

fn audited(job: &Job, goal: Goal, by_hand: ByHand) -> anyhow::Result<AuditSummary> {
    let config = job.settings.resolve(Some(&job.data.data), Preset::Audit)?;
    let outcome = in_run(&job.out, config.clone(), &job.session, |run| run.obey(by_hand).execute(goal))?;
    let ledger = outcome.ledger.as_ref().context("the run made no ledger")?;
    Ok(AuditSummary::of(ledger, &outcome, &job.out, &config))
}

fn print_summary(summary: &AuditSummary, session: &Session) -> anyhow::Result<()> {
    print(&if session.json { output::json(summary)? } else { summary.to_string() })
}

fn distil(arguments: &DistilArguments) -> anyhow::Result<()> {
    let Job { data, out, settings, session } = &arguments.job;
    let config = settings.resolve(Some(&data.data), Preset::Audit)?;
    in_run(out, config, session, |run| match arguments.as_is {
        true => run.distil_as_it_is(),
        false => run.execute(Goal::Distil).map(drop),
    })?;
    let student = Student::load(out, &limbeck::device(&session.device)?)?;
    let files = student.files().map(|(part, file)| (part, out.join(file)));
    print(&match session.json {
        true => output::json(&files.collect::<BTreeMap<_, _>>())?,
        false => {
            let mut lines: Vec<_> = files
                .map(|(part, file)| format!("{}: {}\n", part.replace('_', " "), file.display()))
                .collect();
            lines.push(format!("ask it: limbeck predict {} IMAGE...\n", shell_word(&out.to_string_lossy())));
            lines.concat()
        }
    })
}

fn evaluate(arguments: &EvaluateArguments) -> anyhow::Result<()> {
    let EvaluateArguments { target, data, ablation, budget, transfer_from, held_out, settings, session } =
        arguments;
    let usage = |message: &str| usage("evaluate", message);
    if target.is_dir() {
        if *held_out {
            return Err(usage("--held-out is for a model file: a run is measured on its test images").into());
        }
        if transfer_from.is_some() {
            return Err(usage(
                "--transfer-from is for a model file: a run shows its student what its undefended classifier was attacked with",
            )
            .into());
        }
        let Settings { preset, config, trusted, untrusted, seed, .. } = settings;
        let given = data.is_some() || preset.is_some() || config.is_some() || trusted.is_some();
        if given || *untrusted || seed.is_some() {
            return Err(usage(
                "a run directory has its own DATA, --trusted, --untrusted, --preset, --config and --seed; --set changes a key of it",
            )
            .into());
        }
        let file = config_of(target)?;
        let mut config = RunConfig::resolve_within(Preset::Audit, Some(&file), *budget, &settings.set)?;
        if pipeline::is_as_is(target)? {
            if *ablation {
                return Err(
                    usage("--ablation compares the filters of an audit: this run had no audit").into()
                );
            }
            let found = in_run(target, config, session, |run| run.evaluate_as_it_is())?;
            return print(&match session.json {
                true => output::json(&found)?,
                false => output::student_evaluation(&found),
            });
        }
        config.evaluate.ablation |= ablation;
        let outcome = in_run(target, config, session, |run| run.execute(Goal::Evaluate))?;
        return print_evaluation(&outcome, session, None);
    }
    if *ablation {
        return Err(usage("--ablation compares the filters of a run directory; a model has none").into());
    }
    let Some(data) = data else {
        return Err(usage(&format!(
            "{} is no run directory: a model needs DATA to be measured on",
            target.display()
        ))
        .into());
    };
    let config = settings.resolve_within(Some(data), Preset::Audit, *budget)?;
    let found = with_console(session, None, |console| {
        let device = limbeck::device(&session.device)?;
        let images = if *held_out { MeasuredOn::HeldOut } else { MeasuredOn::Test };
        pipeline::evaluate_model(&config, target, transfer_from.as_deref(), images, &device, console)
    })?;
    print(&if session.json { output::json(&found)? } else { output::model_evaluation(&found) })
}

fn report(arguments: &ReportArguments) -> anyhow::Result<()> {
    let ReportArguments { run, session } = arguments;
    let config = RunConfig::resolve(Preset::Audit, Some(&config_of(run)?), &[])?;
    in_run(run, config, session, |open| match pipeline::is_as_is(run)? {
        true => open.report_as_it_is().map(drop),
        false => open.execute(Goal::Report).map(drop),
    })?;
    let page = run.join("report.html");
    print(&match session.json {
        true => output::json(&json!({ "report": page }))?,
        false => format!("{}\n", page.display()),
    })
}

fn seeds(arguments: &SeedsArguments) -> anyhow::Result<()> {
    let read = |run: &PathBuf| {
        config_of(run)?;
        let file = run.join("evaluation.json");
        Ok(match pipeline::is_as_is(run)? {
            true => SeedRun::from(&read_json::<StudentEvaluation>(&file)?),
            false => SeedRun::from(&read_json::<Evaluation>(&file)?),
        })
    };
    let runs = arguments.runs.iter().map(read).collect::<limbeck::Result<Vec<SeedRun>>>()?;
    let summary = over_seeds(&runs)?;
    print(&if arguments.json { output::json(&summary)? } else { output::seeds(&summary) })
}

fn poison(arguments: &PoisonArguments) -> anyhow::Result<()> {
    let PoisonArguments {
        data,
        out,
        fraction,
        kind,
        target,
        eps,
        attack,
        norm,
        label,
        model,
        settings,
        session,
    } = arguments;
    let mut config = settings.resolve(Some(&data.data), Preset::Gtsrb)?;
    let plan = &mut config.poison.plan;
    let of_kind = PoisonConfig { kind: kind.unwrap_or(plan.kind), ..*plan };
    let perturbs = of_kind.is_gradient_attack();
    let options = [
        ("--fraction", fraction.is_some(), true),
        ("--target", target.is_some(), of_kind.has_target()),
        ("--label", label.is_some(), of_kind.has_label_policy()),
        ("--eps", eps.is_some(), perturbs),
        ("--attack", attack.is_some(), perturbs),
        ("--norm", norm.is_some(), perturbs),
        ("--model", model.is_some(), perturbs),
    ];
    if let Some((idle, ..)) = options.iter().find(|(_, is_given, counts)| *is_given && !counts) {
        let count: Vec<_> =
            options.iter().filter(|(.., counts)| *counts).map(|(option, ..)| *option).collect();
        let kind = of_kind.label();
        let expected = count.join(", ");
        let message =
            format!("{idle} changes nothing about the poison {kind}, expected of these: {expected}");
        return Err(usage("poison", &message).into());
    }
    plan.fraction = fraction.unwrap_or(plan.fraction);
    plan.kind = kind.unwrap_or(plan.kind);
    plan.target = target.unwrap_or(plan.target);
    plan.label = label.unwrap_or(plan.label);
    plan.attack.eps = eps.unwrap_or(plan.attack.eps);
    plan.attack.kind = attack.unwrap_or(plan.attack.kind);
    plan.attack.norm = norm.unwrap_or(plan.attack.norm);
    let copy = with_console(session, None, |console| {
        pipeline::poison_copy(&config, model.as_deref(), out, &limbeck::device(&session.device)?, console)
    })?;
    print(&match session.json {
        true => output::json(&copy)?,
        false => {
            let trusted = copy.trusted.as_ref().map_or(String::new(), |trusted| {
                let [set, word] = [&copy.set, trusted].map(|path| shell_word(&path.to_string_lossy()));
                format!(
                    "trusted: {}\naudit it: limbeck audit {set} --trusted {word} --out RUN\n",
                    trusted.display()
                )
            });
            format!(
                "{} of {} images poisoned\nset: {}\ntruth: {}\n{trusted}",
                copy.poisoned,
                copy.images,
                copy.set.display(),
                copy.truth.display()
            )
        }
    })
}

fn train(arguments: &TrainArguments) -> anyhow::Result<()> {
    let TrainArguments { data, out, settings, session } = arguments;
    let config = settings.resolve(Some(&data.data), Preset::Audit)?;
    let (row, epochs) = with_console(session, None, |console| {
        pipeline::train_model(&config, out, &limbeck::device(&session.device)?, console)
    })?;
    print(&match session.json {
        true => output::json(&json!({ "path": out, "model": row, "epochs": epochs }))?,
        false => format!("{}model: {}\n", output::model(&row), out.display()),
    })
}

fn tune(arguments: &TuneArguments) -> anyhow::Result<()> {
    let TuneArguments { data, out, space, sampler, trials, objective, settings, session } = arguments;
    let config = with_absolute_paths(settings.resolve(data.as_deref(), Preset::Audit)?);
    let space = if space.is_empty() { Space::default() } else { Space::parse(space)? };
    let asked = TuneConfig { space, sampler: *sampler, objective: *objective, trials: *trials };
    let results = with_console(session, None, |console| {
        search(out, &config, &asked, &limbeck::device(&session.device)?, console)
    })?;
    print(&if session.json { output::json(&results)? } else { output::search(&results, out) })?;
    results.best().context("no trial is complete, so there are no best settings")?;
    Ok(())
}

fn predict(arguments: &PredictArguments) -> anyhow::Result<()> {
    let PredictArguments { run, paths, session } = arguments;
    if VectorStudent::is_at(run) {
        return predict_rows(arguments);
    }
    let predictions = with_console(session, None, |console| {
        Student::load(run, &limbeck::device(&session.device)?)?.predict(paths, console)
    })?;
    print(&match session.json {
        true => output::json_lines(&predictions)?,
        false => output::predictions(&predictions),
    })
}

fn predict_rows(arguments: &PredictArguments) -> anyhow::Result<()> {
    let PredictArguments { run, paths, session } = arguments;
    let student = VectorStudent::load(run, &limbeck::device(&session.device)?)?;
    let answers =
        paths.iter().map(|table| student.predict(table)).collect::<limbeck::Result<Vec<_>>>()?.concat();
    print(&match session.json {
        true => output::json_lines(&answers)?,
        false => output::row_answers(&answers),
    })
}

fn vectors(arguments: &VectorsArguments) -> anyhow::Result<()> {
    let VectorsArguments { out, session, .. } = arguments;
    let config = arguments.resolve()?;
    let results = with_console(session, None, |console| {
        run_vectors(&config, out, &limbeck::device(&session.device)?, console)
    })?;
    print(&match session.json {
        true => output::json(&results)?,
        false => output::vectors(&results, out),
    })
}

fn speed(arguments: &SpeedArguments) -> anyhow::Result<()> {
    let SpeedArguments { workloads, seconds, images, threads, device, json, .. } = arguments;
    let shape = speed::Shape {
        batch: arguments.batch.map(NonZeroUsize::get),
        image_size: arguments.image_size,
        width: arguments.width,
        architecture: arguments.architecture,
    };
    let duration = Duration::try_from_secs_f64(*seconds).map_err(|_| {
        usage("speed", &format!("--seconds {seconds}: a number of seconds, 0 or more, is expected"))
    })?;
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let threads = threads.unwrap_or(cores).get();
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("cannot start the threads")?;
    let device = limbeck::device(device)?;
    let asked = |name: &str| workloads.is_empty() || workloads.iter().any(|workload| workload == name);
    let peak = (asked(PEAK) || !json).then(|| speed::peak(threads, duration.min(Duration::from_secs(1))));
    let length = images.map_or(speed::Length::For(duration), |images| speed::Length::Images(images.get()));
    let mut rows = Vec::new();
    for &(workload, name) in speed::TABLE {
        if asked(name) {
            rows.push(SpeedRow::new(workload, shape, speed::measure(workload, shape, length, &device)?));
        }
    }
    print(&match json {
        true => output::speed_lines(peak.filter(|_| asked(PEAK)), &rows)?,
        false => output::speed_table(peak.unwrap_or(f64::NAN), threads, &rows),
    })
}

fn config(command: &ConfigCommand) -> anyhow::Result<()> {
    let resolve = |source: &ConfigSource| source.settings.resolve(source.data.as_deref(), Preset::Audit);
    match command {
        ConfigCommand::Show(source) => print(&resolve(source)?.to_toml()),
        ConfigCommand::Schema => print(&output::json(&RunConfig::schema())?),
        ConfigCommand::Init { file, source } => {
            let text = commented_toml(&resolve(source)?)?;
            if file.exists() {
                anyhow::bail!("{}: found a file that is there already, expected a new one", file.display());
            }
            write_atomically(file, |out| {
                out.write_all(text.as_bytes()).map_err(limbeck::Error::io("write", file))
            })?;
            print(&format!("{}\n", file.display()))
        }
    }
}

fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "limbeck", &mut script);
    print(&String::from_utf8(script).context("the script is not UTF-8")?)
}

/// Works in a run directory; what finished is timed, however the work ends.
fn in_run<T>(
    directory: &Path,
    config: RunConfig,
    session: &Session,
    work: impl FnOnce(&mut Run<'_>) -> limbeck::Result<T>,
) -> anyhow::Result<T> {
    let config = with_absolute_paths(config);
    with_console(session, Some(directory), |console| {
        work(&mut Run::open(directory, config, &limbeck::device(&session.device)?, console)?)
    })
}

/// A run or a search can then be gone on with from any working directory.
fn with_absolute_paths(mut config: RunConfig) -> RunConfig {
    for path in config.paths_mut() {
        if let Ok(Ok(absolute)) = std::path::absolute(&*path).map(|path| path.into_os_string().into_string())
        {
            *path = absolute;
        }
    }
    config
}

/// Works under the eyes of the user. The first error is the one that counts.
fn with_console<T>(
    session: &Session,
    run: Option<&Path>,
    work: impl FnOnce(&Console) -> limbeck::Result<T>,
) -> anyhow::Result<T> {
    let console = Console::new(session.quiet)?;
    let result = work(&console);
    let finished = console.finish(result.is_ok(), run);
    let value = result?;
    finished?;
    Ok(value)
}

fn print_evaluation(outcome: &Outcome, session: &Session, report: Option<&Path>) -> anyhow::Result<()> {
    let evaluation = outcome.evaluation.as_ref().context("the run made no evaluation")?;
    if session.json {
        return print(&output::json(&output::brief_json(evaluation)?)?);
    }
    let report = report.map_or(String::new(), |page| format!("\nreport: {}\n", page.display()));
    print(&(output::summary(evaluation) + &report))
}

/// The config that a run directory was made with.
fn config_of(run: &Path) -> limbeck::Result<PathBuf> {
    let expected = "a run directory, as `limbeck run` makes it";
    if VectorStudent::is_at(run) {
        return Err(limbeck::Error::data(run, "a folder of `limbeck vectors`", expected));
    }
    let path = run.join("config.toml");
    if path.is_file() {
        return Ok(path);
    }
    Err(limbeck::Error::data(run, "no config.toml", expected))
}

/// A fault of a subcommand's arguments that their types do not reveal.
fn usage(subcommand: &str, message: &str) -> UsageError {
    let mut command = Arguments::command();
    command.build();
    match command.find_subcommand_mut(subcommand) {
        Some(subcommand) => subcommand.error(ErrorKind::ArgumentConflict, message),
        None => command.error(ErrorKind::ArgumentConflict, message),
    }
}
