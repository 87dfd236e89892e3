//! The command line: its commands, options and help, and how they become a [`RunConfig`].
//!
//! Nothing here is a setting of its own: every option names a key of the config or a place to read or write.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use limbeck::Result;
use limbeck::attack::{self, AttackKind, Norm};
use limbeck::network::Architecture;
use limbeck::pipeline::{Budget, Preset, RunConfig};
use limbeck::poison::{self, LabelPolicy, PoisonKind};
use limbeck::speed;
use limbeck::tune::{OBJECTIVES, ObjectiveKind, SAMPLERS, SamplerKind, TuneConfig};
use limbeck::vectors::{TaskChoice, VectorConfig};

use crate::policy::FailOn;

/// The word that stands for the embedded sample wherever a set is asked for.
const SAMPLE: &str = "sample";

#[derive(Debug, Parser)]
#[command(
    name = "limbeck",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    about = "Audit, purify and distil an image training set that you cannot fully trust",
    long_about = "limbeck finds poisoned images in a training set, repairs or removes them with a denoising \
                  autoencoder, distils a classifier that can answer null, and reports what that is worth.\n\n\
                  All of it at once: limbeck run --data FOLDER",
    after_help = "First steps:\n  \
                  limbeck run                         the embedded sample, minutes on two cores\n  \
                  limbeck audit photos --out audited  which images of your own set are suspicious\n\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 more findings than --fail-on allows, 130 interrupted"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do it all: audit, purify, distil, measure, and write the report
    Run(RunArguments),
    /// Say which images are suspicious, and why
    Audit(AuditArguments),
    /// Write the set without its poison
    Purify(PurifyArguments),
    /// Train a student that can answer null
    Distil(DistilArguments),
    /// Measure a run, or a stored model on a set
    Evaluate(EvaluateArguments),
    /// Write the report of a run
    Report(ReportArguments),
    /// Sum up runs that differ in their seed alone: means, intervals
    Seeds(SeedsArguments),
    /// Write a poisoned copy of a set, and the truth beside it
    Poison(PoisonArguments),
    /// Train a plain classifier, without any defence
    Train(TrainArguments),
    /// Search for better settings of the autoencoder
    Tune(TuneArguments),
    /// Ask a run's student about images, or about the rows of tables
    Predict(PredictArguments),
    /// Do it all for a table of numbers: audit, purify, distil, attack, report
    Vectors(Box<VectorsArguments>),
    /// Measure how fast this machine trains, attacks and scores
    Speed(SpeedArguments),
    /// Show, describe or write settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  limbeck completions bash > ~/.local/share/bash-completion/completions/limbeck"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether it goes on where it was interrupted when it is given again; the others begin anew.
    pub(crate) fn goes_on(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Audit(_)
            | Self::Purify(_)
            | Self::Distil(_)
            | Self::Report(_)
            | Self::Tune(_) => true,
            Self::Evaluate(arguments) => arguments.data.is_none(),
            Self::Seeds(_)
            | Self::Poison(_)
            | Self::Train(_)
            | Self::Predict(_)
            | Self::Vectors(_)
            | Self::Speed(_)
            | Self::Config(_)
            | Self::Completions { .. } => false,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck run\n  \
                        limbeck run --data photos --out runs/photos --set distill.temperature=10\n\n\
                        A run that was stopped goes on when the same command is given again.")]
pub(crate) struct RunArguments {
    /// Image set: a folder with a folder for each class, parquet files, or GTSRB csv [default: the embedded sample]
    #[arg(long, value_name = "DATA", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::AnyPath)]
    pub(crate) data: Option<String>,
    /// Folder of the run: new, empty, or a run to go on with
    #[arg(long, value_name = "DIR", default_value = "limbeck-run", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck audit photos --out audited              look at audited/audit.html, edit audited/decisions.csv\n  \
                        limbeck audit photos --out audited --fail-on 1%  ends with exit code 3 if more than 1 % is flagged")]
pub(crate) struct AuditArguments {
    #[command(flatten)]
    pub(crate) job: Job,
    /// End with exit code 3 if more images than this are flagged: a number, or a share like 2%; 0 allows none
    #[arg(long, value_name = "N|P%")]
    pub(crate) fail_on: Option<FailOn>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  limbeck purify photos --out audited    (the set lies in audited/purified)\n  \
                  limbeck purify photos --out audited --decisions audited/decisions.csv"
)]
pub(crate) struct PurifyArguments {
    #[command(flatten)]
    pub(crate) job: Job,
    /// Decisions by hand over the audit's verdicts: a CSV with the columns id and decision (keep, reconstruct, discard,
    /// relabel:CLASS; empty = as proposed), as audit writes DIR/decisions.csv. The run keeps them for later commands
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) decisions: Option<PathBuf>,
    /// Leave everything to the audit again, whatever was decided by hand before
    #[arg(long, conflicts_with = "decisions")]
    pub(crate) forget_decisions: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck distil photos --out audited\n  \
                        limbeck distil photos --out again --set distill.teacher=audited/student.safetensors\n\n\
                        The second asks a classifier that is there already in the place of a teacher of its own.")]
pub(crate) struct DistilArguments {
    #[command(flatten)]
    pub(crate) job: Job,
    /// Distil from the set as it is, without audit and purification
    #[arg(long)]
    pub(crate) as_is: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        for seed in 1 2 3; do limbeck run --seed $seed --out runs/$seed; done\n  \
                        limbeck seeds runs/1 runs/2 runs/3")]
pub(crate) struct SeedsArguments {
    /// Finished run directories, made with the same settings and different seeds
    #[arg(required = true, num_args = 2.., value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub(crate) runs: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A set, and the run directory that a part of the method fills.
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Folder of the run: new, empty, or a run to go on with
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck evaluate runs/photos\n  \
                        limbeck evaluate model.safetensors photos --budget standard\n  \
                        limbeck evaluate runs/photos --budget full --set evaluate.attacked_images=200")]
pub(crate) struct EvaluateArguments {
    /// A run directory, or a model file (.safetensors)
    #[arg(value_name = "RUN_OR_MODEL", value_hint = ValueHint::AnyPath)]
    pub(crate) target: PathBuf,
    /// Set to measure a model on; a run directory has its own
    #[arg(value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::AnyPath)]
    pub(crate) data: Option<String>,
    /// Compare filters: none, discard all that is flagged, reconstruct all, decide (limbeck's), random, perfect
    #[arg(long)]
    pub(crate) ablation: bool,
    /// How much attacks may cost: settings of `evaluate` over which --set still wins [default: those of the preset or the run]
    #[arg(long, value_name = "BUDGET", value_parser = budget_parser())]
    pub(crate) budget: Option<Budget>,
    /// Another model file: the images are attacked on it too and shown to the first; a run shows its student what its
    /// undefended classifier was attacked with
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub(crate) transfer_from: Option<PathBuf>,
    /// Measure a model on the training images that settings like these (`data.split`, --config RUN/config.toml) hold out:
    /// to choose settings by, which test images should not
    #[arg(long)]
    pub(crate) held_out: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  limbeck report runs/photos")]
pub(crate) struct ReportArguments {
    /// A run directory; what it lacks is made first
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  limbeck poison photos --out poisoned --fraction 0.1 --eps 0.0314 --attack i-fgsm\n  \
                  limbeck poison photos --out poisoned --fraction 0.1 --kind bad-nets --target 3"
)]
pub(crate) struct PoisonArguments {
    #[command(flatten)]
    pub(crate) data: Data,
    /// New folder: the poisoned copy goes to DIR/set, the truth to DIR/truth.csv, clean images to trust, which the copy lacks, to DIR/trusted
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    /// Share of the training images to poison, 0 to 1 (poison.plan.fraction)
    #[arg(long, value_name = "F")]
    pub(crate) fraction: Option<f64>,
    /// What is done to them (poison.plan.kind)
    #[arg(long, value_parser = poison_parser())]
    pub(crate) kind: Option<PoisonKind>,
    /// Class index that a backdoor's trigger stands for, of bad-nets, blended and label-consistent (poison.plan.target)
    #[arg(long, value_name = "CLASS")]
    pub(crate) target: Option<u32>,
    /// Radius of the perturbation in pixel units, of adversarial, tap and label-consistent; 8/255 = 0.0314 (poison.plan.attack.eps)
    #[arg(long, value_name = "E")]
    pub(crate) eps: Option<f64>,
    /// How images are perturbed (poison.plan.attack.kind)
    #[arg(long, value_parser = attack_parser())]
    pub(crate) attack: Option<AttackKind>,
    /// How the radius is measured (poison.plan.attack.norm)
    #[arg(long, value_parser = norm_parser())]
    pub(crate) norm: Option<Norm>,
    /// Whether a poisoned image keeps its label, of adversarial (poison.plan.label)
    #[arg(long, value_parser = label_parser())]
    pub(crate) label: Option<LabelPolicy>,
    /// Classifier to craft the images on [default: one that is trained for it on the same set]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  limbeck train photos --out model.safetensors")]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) data: Data,
    /// New file for the model (safetensors)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck tune --out search\n  \
                        limbeck tune photos --out search --trials 40 --objective psnr \\\n    \
                        --space dae.train.learning_rate=log:1e-4..1e-2 --space dae.width=int:8..24/4 \\\n    \
                        --space dae.kind=choice:unet,bottleneck\n\n\
                        A search that was stopped goes on when the same command is given again, and with more --trials it is extended.\n\
                        DIR/journal.log is a journal of Optuna's, with a study named limbeck.")]
pub(crate) struct TuneArguments {
    /// Image set, as in `limbeck run` [default: the embedded sample]
    #[arg(value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::AnyPath)]
    pub(crate) data: Option<String>,
    /// Folder of the search: new, empty, or a search to go on with
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    /// A key and the values to try: log:LOW..HIGH, float:LOW..HIGH, int:LOW..HIGH[/STEP], log-int:LOW..HIGH, choice:A,B; or a
    /// TOML file of such keys; may be given again [default: learning rate, head weight, width and batch of the autoencoder]
    #[arg(long, value_name = "KEY=VALUES|FILE")]
    pub(crate) space: Vec<String>,
    /// What is tried next, and what is stopped early
    #[arg(long, default_value = TuneConfig::default().sampler.name(), value_parser = sampler_parser())]
    pub(crate) sampler: SamplerKind,
    /// Trials in all, those of earlier calls included
    #[arg(long, value_name = "N", default_value_t = TuneConfig::default().trials)]
    pub(crate) trials: usize,
    /// What is measured, on trusted images
    #[arg(long, value_name = "NAME", default_value = TuneConfig::default().objective.row().name, value_parser = objective_parser())]
    pub(crate) objective: ObjectiveKind,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        limbeck predict runs/photos new.png more-photos/ --json\n  \
                        limbeck predict beams new-beams.csv")]
pub(crate) struct PredictArguments {
    /// A run directory with a student, of images or of `limbeck vectors`
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) run: PathBuf,
    /// Image files, or folders with image files, each read whole: crop them where the training images were (GTSRB's csv tables do);
    /// of `limbeck vectors`, tables with its feature columns
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) session: Session,
}

#[derive(Debug, Args)]
#[command(
    about = "Do it all for a table of numbers: audit, purify, distil, attack, report",
    long_about = "Does for a table of numbers what `limbeck run` does for images.\n\n\
                  Every column but the target and the ignored ones is a feature: a number in every row, or in parquet a \
                  list of as many numbers in every row, which are so many features. Features are scaled to [0, 1] by their range, \
                  so eps is a share of it. The target is a class (text, or whole numbers, of at most 100 values) or a quantity; \
                  several target columns are quantities.\n\n\
                  A fifth of the rows is tested on, a tenth of the rest is trusted to be clean; the others are audited: by a \
                  denoising autoencoder, its detection head, and networks that did not learn from the row. A teacher and a \
                  student learn from what is left, and all of it is attacked.\n\n\
                  DIR then holds ledger.csv (every audited row: scores, verdict, reason), purified.csv or .parquet (the table \
                  without test rows and what was discarded), report.html, evaluation.json, config.toml (every setting), the \
                  networks, and poison_truth.csv if poison was simulated. Same settings, same bytes.",
    after_help = "Examples:\n  \
                  limbeck vectors beams.csv --target beam --out beams\n  \
                  limbeck vectors beams.csv --target gain --out robust --set distill.method=adversarial\n  \
                  limbeck vectors table.parquet --target y1,y2 --ignore id,date --trusted checked.parquet --out audited\n  \
                  limbeck vectors table.csv --target y --out trial --set poison.kind=label-flip --set poison.fraction=0.1\n\n\
                  Settings that matter most:\n  \
                  distill.method                   none, defensive (the default), adversarial; of classes also ard, ltd\n  \
                  distill.adversarial              none, teacher, student, both: who learns from perturbed rows\n  \
                  distill.crafting.eps             radius of adversarial training, a share of each feature's range\n  \
                  network.hidden, network.train    shape and training of the networks\n  \
                  audit.rule                       {rule=\"percentile\",percentile=95} or {rule=\"fpr\",fpr=0.05}\n  \
                  data.split                       shares of test, trusted and calibration rows\n  \
                  evaluate.attacks                 [{kind=\"pgd\",eps=0.05}]; a regression: fgsm, i-fgsm, mi-fgsm, pgd\n  \
                  poison.kind                      none, adversarial, label-flip: an experiment with a known attacker"
)]
pub(crate) struct VectorsArguments {
    /// Table: .csv (with a header) or .parquet, whose lists of numbers are as many features
    #[arg(value_name = "DATA", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::FilePath)]
    pub(crate) data: String,
    /// Columns to predict; several are quantities (data.target)
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// Folder of the result: new, empty, or one of an earlier `limbeck vectors`, whose files are replaced
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    /// What the target is (data.task) [default: auto]
    #[arg(long, value_parser = task_parser())]
    pub(crate) task: Option<TaskChoice>,
    /// Columns that are carried along and not looked at (data.ignore)
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) ignore: Vec<String>,
    /// Rows known to be clean, a table like DATA; without it, a random tenth of DATA is taken to be so (data.trusted)
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::FilePath)]
    pub(crate) trusted: Option<String>,
    /// Rows to test on, a table like DATA; without it, a random fifth of DATA (data.test)
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::FilePath)]
    pub(crate) test: Option<String>,
    /// TOML file over the defaults; DIR/config.toml is a complete one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, over the file; may be given again
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Settings")]
    pub(crate) set: Vec<String>,
    /// Root of every random draw, the same as --set seed=N
    #[arg(long, value_name = "N", help_heading = "Settings")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) session: Session,
}

impl VectorsArguments {
    /// The config that these arguments give; what they do not name stays as the file has it.
    pub(crate) fn resolve(&self) -> Result<VectorConfig> {
        let mut config = VectorConfig::resolve(self.config.as_deref(), &self.set)?;
        let data = &mut config.data;
        data.path.clone_from(&self.data);
        if !self.target.is_empty() {
            data.target.clone_from(&self.target);
        }
        if !self.ignore.is_empty() {
            data.ignore.clone_from(&self.ignore);
        }
        data.task = self.task.unwrap_or(data.task);
        for (key, file) in [(&mut data.trusted, &self.trusted), (&mut data.test, &self.test)] {
            if let Some(file) = file {
                key.clone_from(file);
            }
        }
        config.seed = self.seed.unwrap_or(config.seed);
        Ok(config)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  limbeck speed train infer --threads 2")]
pub(crate) struct SpeedArguments {
    /// Standard workloads; `peak` is that of the processor [default: all]
    #[arg(value_name = "WORKLOAD", value_parser = workload_parser())]
    pub(crate) workloads: Vec<String>,
    /// Time for each, at least
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Work on this many images once, however long it takes
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    pub(crate) images: Option<NonZeroUsize>,
    /// Images that are worked on together [default: that of the workload]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<NonZeroUsize>,
    /// Height and width of the images, a multiple of 8 pixels
    #[arg(long, value_name = "PIXELS", default_value_t = speed::Shape::default().image_size)]
    pub(crate) image_size: usize,
    /// Channels of the networks' first stage
    #[arg(long, value_name = "N", default_value_t = speed::Shape::default().width)]
    pub(crate) width: usize,
    /// Trunk of the classifier
    #[arg(long, default_value = "vgg", value_parser = architecture_parser())]
    pub(crate) architecture: Architecture,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Where tensors are computed; flex is the CPU
    #[arg(long, default_value = limbeck::DEVICES[0], value_parser = PossibleValuesParser::new(limbeck::DEVICES))]
    pub(crate) device: String,
    /// Print the result as JSON, an object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings that a run with these options would have, as TOML
    #[command(after_help = "Example:\n  limbeck config show --preset gtsrb --set seed=3 > gtsrb.toml")]
    Show(ConfigSource),
    /// Print the JSON schema of a config file
    #[command(after_help = "Example:\n  limbeck config schema > limbeck.schema.json")]
    Schema,
    /// Write a config file with every key explained
    #[command(
        after_help = "Example:\n  limbeck config init limbeck.toml --data photos && limbeck run --config limbeck.toml"
    )]
    Init {
        /// New file; an existing one is never overwritten
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        source: ConfigSource,
    },
}

/// What settings are resolved from.
#[derive(Debug, Args)]
pub(crate) struct ConfigSource {
    /// Image set, as in `limbeck run`
    #[arg(long, value_name = "DATA", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::AnyPath)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// The set that a command works on.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// Image set: a folder with a folder for each class, parquet files, or GTSRB csv; `sample` = the embedded one
    /// (a folder of that name: ./sample)
    #[arg(value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::AnyPath)]
    pub(crate) data: String,
}

/// What decides the bytes of a result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Settings {
    /// Complete settings to start from [default: sample for the embedded sample, else audit, for `poison` gtsrb]
    #[arg(long, value_parser = preset_parser())]
    pub(crate) preset: Option<Preset>,
    /// TOML file over the preset; see `limbeck config init`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, over preset and file; may be given again; see `limbeck config show`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Images known to be clean and rightly labelled, like DATA; without it, a random twentieth of DATA is taken to be so
    #[arg(long, value_name = "DATA", value_hint = ValueHint::AnyPath, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) trusted: Option<String>,
    /// Trust no image: audited ones that networks which never learnt from them find usual stand in; the same as
    /// --set knowledge.setting=untrusted
    #[arg(long, conflicts_with = "trusted")]
    pub(crate) untrusted: bool,
    /// Root of every random draw, the same as --set seed=N
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Where it runs and how it speaks; changes no result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device and output")]
pub(crate) struct Session {
    /// Where tensors are computed; flex is the CPU
    #[arg(long, default_value = limbeck::DEVICES[0], value_parser = PossibleValuesParser::new(limbeck::DEVICES))]
    pub(crate) device: String,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Job {
    /// These arguments as they are typed, for a command that goes on with them.
    pub(crate) fn words(&self) -> String {
        let Settings { preset, config, set, trusted, untrusted, seed } = &self.settings;
        let mut words =
            vec![shell_word(&self.data.data), "--out".to_owned(), shell_word(&self.out.to_string_lossy())];
        let mut option = |name: &str, value: &str| words.extend([name.to_owned(), shell_word(value)]);
        if let Some(preset) = preset {
            option("--preset", preset.name());
        }
        if let Some(config) = config {
            option("--config", &config.to_string_lossy());
        }
        set.iter().for_each(|set| option("--set", set));
        if let Some(trusted) = trusted {
            option("--trusted", trusted);
        }
        if let Some(seed) = seed {
            option("--seed", &seed.to_string());
        }
        if *untrusted {
            words.push("--untrusted".to_owned());
        }
        words.join(" ")
    }
}

/// One word of a shell's command line, in quotes where it needs them.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Settings {
    /// The checked config for a set, `None` = the one that the settings name. Without `--preset`, the embedded
    /// sample gets the preset made for it and every other set gets `for_own_set`.
    pub(crate) fn resolve(&self, data: Option<&str>, for_own_set: Preset) -> Result<RunConfig> {
        self.resolve_within(data, for_own_set, None)
    }

    /// The same, with a budget of the evaluation over presets and files and below `--set`.
    pub(crate) fn resolve_within(
        &self,
        data: Option<&str>,
        for_own_set: Preset,
        budget: Option<Budget>,
    ) -> Result<RunConfig> {
        let over = |preset| {
            let untrusted = self.untrusted.then(|| "knowledge.setting=untrusted".to_owned());
            let set: Vec<String> = self.set.iter().cloned().chain(untrusted).collect();
            let mut config = RunConfig::resolve_within(preset, self.config.as_deref(), budget, &set)?;
            if let Some(data) = data {
                config.data.path = if data == SAMPLE { String::new() } else { data.to_owned() };
            }
            if let Some(trusted) = &self.trusted {
                config.data.trusted.clone_from(trusted);
            }
            config.seed = self.seed.unwrap_or(config.seed);
            config.check()?;
            Ok(config)
        };
        if let Some(preset) = self.preset {
            return over(preset);
        }
        let config = over(Preset::Sample)?;
        if config.data_path().is_none() { Ok(config) } else { over(for_own_set) }
    }
}

fn preset_parser() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(|preset| PossibleValue::new(preset.name()).help(about(preset))))
        .map(|name| Preset::named(&name).expect("clap lets only names of presets through"))
}

fn about(preset: Preset) -> &'static str {
    match preset {
        Preset::Sample => "the embedded sample with a simulated attacker: minutes on two cores",
        Preset::Audit => "a set of your own, audited as it comes",
        Preset::Gtsrb => "the full GTSRB set with a simulated attacker: about an hour on two cores",
        Preset::Robust => "a student that withstands attacks, from a set as it comes: hours on two cores",
        Preset::Authors => "the settings of the authors' public code",
    }
}

fn budget_parser() -> impl TypedValueParser<Value = Budget> {
    let about = |budget| match budget {
        Budget::Quick => "fgsm and pgd on few images: moments",
        Budget::Standard => "apgd, square and L2 too, every curve and check: minutes",
        Budget::Full => "AutoAttack as published, Carlini & Wagner and FAB: hours",
    };
    PossibleValuesParser::new(
        Budget::TABLE.iter().map(move |&(budget, name)| PossibleValue::new(name).help(about(budget))),
    )
    .map(|name| Budget::named(&name).expect("clap lets only names of budgets through"))
}

/// The workload that is no network: the processor's own limit.
pub(crate) const PEAK: &str = "peak";

fn workload_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(std::iter::once(PEAK).chain(speed::TABLE.iter().map(|row| row.1)))
}

fn task_parser() -> impl TypedValueParser<Value = TaskChoice> {
    const TASKS: [(TaskChoice, &str, &str); 3] = [
        (TaskChoice::Auto, "auto", "classes if the target is text or whole numbers of at most 100 values"),
        (TaskChoice::Classification, "classification", "classes"),
        (TaskChoice::Regression, "regression", "quantities"),
    ];
    let named = |name: &str| TASKS.iter().find(|row| row.1 == name).map(|row| row.0);
    PossibleValuesParser::new(TASKS.map(|(_, name, about)| PossibleValue::new(name).help(about)))
        .map(move |name| named(&name).expect("clap lets only names of tasks through"))
}

fn architecture_parser() -> impl TypedValueParser<Value = Architecture> {
    let named = |name: &str| Architecture::TABLE.iter().find(|row| row.1 == name).map(|row| row.0);
    PossibleValuesParser::new(Architecture::TABLE.iter().map(|row| row.1))
        .map(move |name| named(&name).expect("clap lets only names of architectures through"))
}

fn poison_parser() -> impl TypedValueParser<Value = PoisonKind> {
    let named = |name: &str| poison::TABLE.iter().find(|row| row.1 == name).map(|row| row.0);
    PossibleValuesParser::new(poison::TABLE.iter().map(|row| row.1))
        .map(move |name| named(&name).expect("clap lets only names of poisons through"))
}

fn attack_parser() -> impl TypedValueParser<Value = AttackKind> {
    let named =
        |name: &str| attack::TABLE.iter().find(|family| family.name == name).map(|family| family.kind);
    PossibleValuesParser::new(attack::TABLE.iter().map(|family| family.name))
        .map(move |name| named(&name).expect("clap lets only names of attacks through"))
}

fn sampler_parser() -> impl TypedValueParser<Value = SamplerKind> {
    PossibleValuesParser::new(SAMPLERS.iter().map(|(_, name, about)| PossibleValue::new(*name).help(*about)))
        .map(|name| SamplerKind::named(&name).expect("clap lets only names of samplers through"))
}

fn objective_parser() -> impl TypedValueParser<Value = ObjectiveKind> {
    PossibleValuesParser::new(OBJECTIVES.iter().map(|row| PossibleValue::new(row.name).help(row.about)))
        .map(|name| ObjectiveKind::named(&name).expect("clap lets only names of objectives through"))
}

fn norm_parser() -> impl TypedValueParser<Value = Norm> {
    let named = |name: &str| Norm::TABLE.iter().find(|row| row.1 == name).map(|row| row.0);
    PossibleValuesParser::new(Norm::TABLE.iter().map(|row| row.1))
        .map(move |name| named(&name).expect("clap lets only names of norms through"))
}

fn label_parser() -> impl TypedValueParser<Value = LabelPolicy> {
    PossibleValuesParser::new(["kept", "changed"])
        .map(|name| if name == "kept" { LabelPolicy::Kept } else { LabelPolicy::Changed })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn settings(arguments: &[&str]) -> (Option<String>, Settings) {
        let whole = [&["limbeck", "run"], arguments].concat();
        match Arguments::try_parse_from(whole).expect("valid arguments").command {
            Command::Run(run) => (run.data, run.settings),
            other => panic!("{other:?}"),
        }
    }

    fn resolved(arguments: &[&str]) -> RunConfig {
        let (data, settings) = settings(arguments);
        settings.resolve(data.as_deref(), Preset::Audit).expect("a config in range")
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let (name, help) = (command.get_name(), command.get_after_help().map(ToString::to_string));
            assert!(command.has_subcommands() || help.is_some_and(|help| help.contains("Example")), "{name}");
            command.get_subcommands().for_each(check);
        }
        Arguments::command().get_subcommands().for_each(check);
    }

    #[test]
    fn the_preset_follows_the_set_unless_it_is_named() {
        assert_eq!(resolved(&[]), RunConfig::preset(Preset::Sample));
        assert_eq!(resolved(&["--data", "sample"]), RunConfig::preset(Preset::Sample));
        let mut audit = RunConfig::preset(Preset::Audit);
        audit.data.path = "photos".to_owned();
        assert_eq!(resolved(&["--data", "photos"]), audit);
        assert_eq!(resolved(&["--set", "data.path=photos"]), audit);
        audit.data.path = "./sample".to_owned();
        assert_eq!(resolved(&["--data", "./sample"]), audit);
        assert_eq!(resolved(&["--preset", "gtsrb"]), RunConfig::preset(Preset::Gtsrb));
    }

    #[test]
    fn a_path_is_taken_as_it_is_even_if_it_reads_like_toml() {
        for path in ["5", "a = \"b\"", "true", "back\\slash"] {
            assert_eq!(resolved(&["--data", path]).data.path, path);
        }
    }

    #[test]
    fn arguments_that_are_typed_again_are_read_the_same() {
        let typed = "limbeck audit 'my photos' --out run --preset gtsrb --config a.toml --set 'a={b='\\''c'\\''}' --set d=1 --seed 3";
        let split =
            ["limbeck", "audit", "my photos", "--out", "run", "--preset", "gtsrb", "--config", "a.toml"];
        let split = split.into_iter().chain(["--set", "a={b='c'}", "--set", "d=1", "--seed", "3"]);
        match Arguments::try_parse_from(split).expect("valid arguments").command {
            Command::Audit(audit) => assert_eq!(format!("limbeck audit {}", audit.job.words()), typed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn untrusted_is_the_key_of_that_setting_and_bears_no_trusted_images() {
        assert_eq!(resolved(&["--untrusted"]), resolved(&["--set", "knowledge.setting=untrusted"]));
        let both = ["limbeck", "run", "--untrusted", "--trusted", "photos"];
        assert!(Arguments::try_parse_from(both).is_err());
    }

    #[test]
    fn options_of_vectors_are_keys_of_their_config() {
        let whole =
            "limbeck vectors t.csv --target a,b --ignore id --task regression --test u.csv --seed 3 --out o";
        let typed = Arguments::try_parse_from(whole.split(' ')).expect("valid arguments");
        let Command::Vectors(typed) = typed.command else { panic!("another command") };
        let keys =
            ["data.path=t.csv", "data.target=[\"a\",\"b\"]", "data.ignore=[\"id\"]", "data.task=regression"];
        let keys: Vec<String> =
            keys.into_iter().chain(["data.test=u.csv", "seed=3"]).map(str::to_owned).collect();
        let expected = VectorConfig::resolve(None, &keys).expect("known keys");
        assert_eq!(typed.resolve().expect("known keys"), expected);
    }

    #[test]
    fn seed_is_the_key_seed() {
        assert_eq!(resolved(&["--seed", "7"]), resolved(&["--set", "seed=7"]));
    }
}
