//! The command line. Everything it can do is in the library.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use gateway::command::control::protocol::Request;
use gateway::command::log::Format;
use gateway::command::{
    AcmeCommand, AnyCommand, Arguments, CliCommand, ControlArgs, ImportArgs, Order, Origin, Quick, choice,
    completions, control, examine, import, log, tables, write_manual,
};
use gateway::config;
use gateway::lifecycle::{self, ConfigSource, Ending, LaunchContext, Signals};
use mimalloc::MiMalloc;
use tokio::runtime::Builder;
use tracing::error;

/// Tasks are aligned to cache lines; the system's allocator is slow at such alignments.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = lifecycle::launch() {
        return code;
    }
    match run() {
        Ok(code) => code,
        Err(e) => {
            // Problems of a configuration are one per line, in the form that editors can jump to.
            let _ = writeln!(std::io::stderr(), "wssgate: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    // The environment is read before there is any thread. Then the signal handlers are installed: a
    // SIGHUP that arrives early must not end the process.
    let origin = LaunchContext::look()?;
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start the runtime")?;
    let mut signals =
        runtime.block_on(async { Signals::install() }).context("can't install signal handlers")?;
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => match misspelt(&e) {
            Some(word) => return Err(no_command(&word)),
            None => e.exit(),
        },
    };
    let config = arguments.file.or(arguments.config);
    let check = CliCommand::Check { file: None, request: None, header: Vec::new() };
    let start = match arguments.command.or(arguments.test.then_some(AnyCommand::Other(check))) {
        None => config.map_or(Start::Demonstration, Start::File),
        Some(AnyCommand::Quick(command)) => {
            if config.is_some() && std::env::var_os("WSSGATE_CONFIG").is_none() {
                anyhow::bail!("this command needs no configuration file: leave --config out");
            }
            Start::Quick(command.into())
        }
        Some(AnyCommand::Other(command)) => {
            // A tap runs until it is ended so.
            let ended =
                if matches!(command, CliCommand::Tap { .. }) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            let is_import = matches!(command, CliCommand::Import { .. });
            let code = runtime.block_on(async {
                tokio::select! {
                    code = run_command(command, config) => Some(code),
                    _ = signals.ending() => None, // what is being written is finished
                }
            });
            if is_import {
                runtime.shutdown_background(); // files that take long to translate must not delay the end
                return code.unwrap_or(Ok(ended));
            }
            let Some(code) = code else { return Ok(ended) };
            runtime.shutdown_background(); // a look-up that hangs must not delay the end
            return code;
        }
    };
    let usual = if matches!(start, Start::Quick(_)) { Format::Live } else { Format::Text };
    let format = arguments.log_format.unwrap_or(usual);
    let guard = log::start(format, arguments.log.as_deref()).context("--log")?;
    let code = runtime.block_on(run_gateway(start, origin, signals));
    runtime.shutdown_background(); // a file system that hangs must not delay the end
    drop(guard); // writes what is left of the log
    code
}

/// What the gateway runs by.
enum Start {
    File(PathBuf),
    Quick(Order),
    Demonstration,
}

async fn run_command(command: CliCommand, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut whose = (None, None);
    let (name, target, id, control_args) = match command {
        CliCommand::Check { file, request, header } => {
            return check(file.or(config), request.as_deref(), &header).await;
        }
        CliCommand::Import { server, import_args } => return import_from(server, import_args).await,
        CliCommand::Trust { remove } => {
            let report = tokio::task::spawn_blocking(move || {
                if remove { gateway::command::distrust() } else { gateway::command::trust() }
            });
            let (text, is_done) = report.await??;
            std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
            return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        CliCommand::Completions { shell } => {
            std::io::stdout().write_all(&completions(shell)).context("stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::Manual { directory } => {
            let shown = directory.display().to_string();
            let write = tokio::task::spawn_blocking(move || write_manual(&directory));
            write.await?.with_context(|| format!("manual pages can't be written to {shown}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::Acme(AcmeCommand::Try { file, name }) => return try_acme(file.or(config), &name).await,
        CliCommand::Reference => {
            std::io::stdout().write_all(config::reference().as_bytes()).context("stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::Schema => {
            std::io::stdout().write_all(config::schema().as_bytes()).context("stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::Version => {
            writeln!(std::io::stdout(), "wssgate {}", env!("CARGO_PKG_VERSION")).context("stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::TicketKey => {
            let made = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
            let line = tls_acceptor::TicketKeys::fresh_line(&format!("made {made}"))?;
            std::io::stdout().write_all(line.as_bytes()).context("stdout")?;
            return Ok(ExitCode::SUCCESS);
        }
        CliCommand::Status(control_args) => ("status", None, None, control_args),
        CliCommand::Sessions(control_args) => ("sessions", None, None, control_args),
        CliCommand::Doctor(ControlArgs { socket, json }) => {
            let socket = socket.unwrap_or_else(|| control::find(config.as_deref()));
            let found = examine(config, &socket).await;
            let text = if json { found.json() } else { found.text() };
            std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
            return Ok(if found.needs_attention() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        CliCommand::Tap { tap_args, control_args } => {
            let socket = control_args.socket.unwrap_or_else(|| control::find(config.as_deref()));
            let options = tap_args.into_options(control_args.json);
            let (out, err) = (&mut std::io::stdout().lock(), &mut std::io::stderr().lock());
            let done = control::tap::watch::watch(&socket, &options, out, err).await?;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        CliCommand::Upstreams(control_args) => ("upstreams", None, None, control_args),
        CliCommand::Reload(control_args) => ("reload", None, None, control_args),
        CliCommand::Drain { target: None, .. } => anyhow::bail!(
            "drain needs a route (domain.com/wss) or a backend (127.0.0.1:8282); to drain the whole gateway, send \
             it SIGTERM (systemctl stop wssgate)"
        ),
        CliCommand::Drain { target, control_args } => ("drain", target, None, control_args),
        CliCommand::Undrain { target, control_args } => ("undrain", Some(target), None, control_args),
        CliCommand::Close { id, subject, client, control_args } => {
            whose = (subject, client);
            ("close", None, id, control_args)
        }
    };
    let socket = control_args.socket.unwrap_or_else(|| control::find(config.as_deref()));
    let (subject, client) = whose;
    let request = Request { command: name.to_owned(), target, id, subject, client, tap: None };
    let (out, err) = (&mut std::io::stdout().lock(), &mut std::io::stderr().lock());
    let done = control::client::ask(&socket, &request, control_args.json, out, err).await?;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An argument that is not a file and doesn't look like a path: probably a misspelt command.
fn meant_as_command(file: &Path) -> Option<&str> {
    let word = file.to_str()?;
    (!word.contains(['/', '.']) && !file.exists()).then_some(word)
}

/// The word that stands where a command is expected, if that is what is wrong: to clap it is the name of a file, and what
/// follows it is too much.
fn misspelt(e: &clap::Error) -> Option<String> {
    let word = std::env::args().nth(1)?;
    let is_command = Arguments::command().find_subcommand(&word).is_some();
    let is_word = !word.starts_with('-') && meant_as_command(Path::new(&word)).is_some();
    (e.kind() == ErrorKind::UnknownArgument && is_word && !is_command).then_some(word)
}

fn no_command(word: &str) -> anyhow::Error {
    anyhow::anyhow!("{word:?} is neither a command nor a file; `wssgate --help` lists the commands")
}

/// Fails, if a certificate can't be ordered.
async fn try_acme(config: Option<PathBuf>, names: &[String]) -> anyhow::Result<ExitCode> {
    let file = config.context("acme try needs a configuration: wssgate acme try FILE")?;
    let read = tokio::task::spawn_blocking(move || config::Config::from_file(&file)).await?;
    let config = read.map_err(|problems| anyhow::anyhow!("the configuration can't be used\n{problems}"))?;
    let say = |line| {
        let _ = writeln!(std::io::stdout(), "{line}"); // all are ordered, even if the output is closed
    };
    let are_all_issued = lifecycle::try_acme(&config, names, say).await;
    Ok(if are_all_issued { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fails, if `wssgate check` would refuse what is made.
async fn import_from(server: Origin, import_args: ImportArgs) -> anyhow::Result<ExitCode> {
    let ImportArgs { file, prefix, write } = import_args;
    let file = file.unwrap_or_else(|| server.usual_file().to_owned());
    let made = tokio::task::spawn_blocking(move || import(server, &file, prefix.as_deref())).await??;
    match write {
        Some(file) => made.write(&file)?, // here, so that a signal doesn't leave half of it
        None => std::io::stdout().write_all(made.toml.as_bytes()).context("stdout")?,
    }
    std::io::stderr().write_all(made.report().as_bytes()).context("stderr")?;
    Ok(if made.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fails, if no route takes the `request`.
async fn check(
    config: Option<PathBuf>,
    request: Option<&str>,
    fields: &[String],
) -> anyhow::Result<ExitCode> {
    let file = config.context("check needs a configuration: wssgate check FILE")?;
    let load = move || lifecycle::load(&ConfigSource::File(file), None);
    let mut candidate = tokio::task::spawn_blocking(load).await?.map_err(|problems| {
        let count = problems.0.len();
        anyhow::anyhow!("{count} problem{}\n{problems}", if count == 1 { "" } else { "s" })
    })?;
    if let Some(request) = request {
        let (text, is_taken) = choice(&candidate.config, request, fields).map_err(anyhow::Error::msg)?;
        std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
        return Ok(if is_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    lifecycle::look_around(&mut candidate).await;
    let tables = tables(&candidate, net_io::unix_now());
    std::io::stdout().write_all(tables.as_bytes()).context("stdout")?;
    Ok(ExitCode::SUCCESS)
}

async fn run_gateway(start: Start, origin: LaunchContext, signals: Signals) -> anyhow::Result<ExitCode> {
    let is_demonstration = matches!(start, Start::Demonstration);
    let (source, quick) = match start {
        Start::File(file) => {
            if let Some(word) = meant_as_command(&file) {
                return Err(no_command(word));
            }
            (ConfigSource::File(file), None)
        }
        Start::Quick(order) => prepare(order, &origin)?,
        Start::Demonstration => prepare(Order::demonstration(), &origin)?,
    };
    let on_ready = move |addresses: &[SocketAddr]| {
        let Some(quick) = quick else { return };
        let addresses = addresses.to_vec();
        // It asks whether the backend is there, and the gateway doesn't wait for that.
        std::thread::spawn(move || introduce(&quick, &addresses, is_demonstration));
    };
    Ok(match lifecycle::run(source, origin, signals, on_ready).await {
        Ok(Ending::Terminated | Ending::Interrupted | Ending::TakenOver) => ExitCode::SUCCESS,
        Ok(Ending::Hurried | Ending::Failed) => ExitCode::FAILURE,
        Err(lifecycle::StartError::Config(problems)) => {
            for problem in &problems.0 {
                error!(problem = %problem, "the configuration can't be used");
            }
            ExitCode::FAILURE
        }
        Err(e) => {
            error!(cause = %e, "the gateway can't start");
            ExitCode::FAILURE
        }
    })
}

fn prepare(order: Order, origin: &LaunchContext) -> anyhow::Result<(ConfigSource, Option<Quick>)> {
    let quick = Quick::prepare(order, origin.is_taking_over())?;
    Ok((quick.source.clone(), Some(quick)))
}

/// Written to stdout, for people; the log goes to stderr.
fn introduce(quick: &Quick, addresses: &[SocketAddr], is_demonstration: bool) {
    let mut stdout = std::io::stdout();
    let mut text = quick.welcome(addresses, stdout.is_terminal());
    if is_demonstration {
        text.insert_str(
            0,
            "\n  No configuration file was given (--config FILE), so this is the demonstration.\n",
        );
    }
    let _ = stdout.write_all(text.as_bytes());
}
