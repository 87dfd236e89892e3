//! `limbeck`: the command line of the library of that name. Arguments, progress, printing, exit codes; no
//! logic of its own.

mod arguments;
mod commands;
mod commented;
mod exit;
mod output;
mod policy;
mod progress;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use exit::Exit;
use output::style;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    commands::execute(&command).unwrap_or_else(|error| explain(&error, command.goes_on())).into()
}

/// Says on stderr what went wrong, and chooses the exit code.
fn explain(error: &anyhow::Error, goes_on: bool) -> Exit {
    let interrupted = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(limbeck::Error::Interrupted))
    };
    let mut stderr = anstream::stderr().lock();
    let (exit, written) = if let Some(usage) = error.downcast_ref::<clap::Error>() {
        (Exit::Usage, usage.print())
    } else if error.chain().any(interrupted) {
        let next = if goes_on { "run the same command again to go on" } else { "nothing was written" };
        (Exit::Interrupted, writeln!(stderr, "interrupted: {next}"))
    } else {
        let style = style::BAD;
        (Exit::Failed, writeln!(stderr, "{style}error:{style:#} {error:#}"))
    };
    // Nobody is left to tell that stderr is gone.
    let _ = written;
    exit
}
