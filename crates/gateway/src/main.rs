//! The command line. Everything it can do is in the library.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use gateway::command::control::protocol::Request;
use gateway::command::log::Format;
use gateway::command::{Demo, choice, control, log, tables};
use gateway::config;
use gateway::lifecycle::{self, ConfigSource, Ending, LaunchContext, Signals};
use mimalloc::MiMalloc;
use tokio::runtime::Builder;
use tracing::{error, info};

/// Tasks are aligned to cache lines; the system's allocator is slow at such alignments.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// An edge gateway for WebSockets over TLS.
///
/// Without a configuration file it runs a demonstration at https://localhost:8443/.
#[derive(Debug, Parser)]
#[command(name = "wssgate", version)]
struct Arguments {
    /// Configuration file; `wssgate FILE` does the same
    #[arg(long, short, value_name = "FILE", env = "WSSGATE_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Configuration file
    #[arg(value_name = "FILE", hide = true)]
    file: Option<PathBuf>,
    /// Check the configuration, as `wssgate check` does
    #[arg(long, short, hide = true)]
    test: bool,
    /// Format of the log lines
    #[arg(long, value_enum, default_value = "text", env = "WSSGATE_LOG_FORMAT")]
    log_format: Format,
    /// Log level: error, warn, info, debug or trace, or directives of the tracing crate
    #[arg(long, default_value = "info", env = "WSSGATE_LOG")]
    log: String,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Check a configuration and its certificates, and show their effect
    #[command(alias = "validate")]
    Check {
        /// Configuration file, if --config doesn't name it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Show which route takes this request, such as `GET https://domain.com/x` or `wss://domain.com/x`, and why the
        /// others don't
        #[arg(long, value_name = "REQUEST")]
        request: Option<String>,
        /// A field of that request, such as "X-Api: 2"
        #[arg(long, short = 'H', value_name = "FIELD", requires = "request")]
        header: Vec<String>,
    },
    /// Print all options of the configuration file, as Markdown
    Reference,
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print the version
    #[command(hide = true)]
    Version,
    /// Print a new key for session tickets: a line for the file that `ticket_keys` names
    ///
    /// To rotate the keys: put the new line first, reload, and remove the old line 12 hours later, when
    /// its last tickets have expired. If several gateways share the keys, first add the new key as the
    /// second line on all of them, and then move it to the first line.
    TicketKey,
    /// Show the state of the running gateway
    Status(ControlArgs),
    /// List live WebSocket sessions
    Sessions(ControlArgs),
    /// Show the servers that requests are passed on to
    Upstreams(ControlArgs),
    /// Read the configuration and the certificates again, as SIGHUP does, and print the result
    Reload(ControlArgs),
    /// Close the sessions of a route or a backend, and send no new requests to it
    Drain {
        /// A route such as domain.com/wss or /wss, or a backend such as 127.0.0.1:8282
        #[arg(value_name = "ROUTE|SERVER")]
        target: Option<String>,
        #[command(flatten)]
        control_args: ControlArgs,
    },
    /// Send requests to a drained route or backend again
    Undrain {
        /// The route or backend, as it was given to `drain`
        #[arg(value_name = "ROUTE|SERVER")]
        target: String,
        #[command(flatten)]
        control_args: ControlArgs,
    },
    /// Close WebSocket sessions with a Close frame
    #[command(group = clap::ArgGroup::new("sessions").required(true))]
    Close {
        /// The session's id, from `wssgate sessions` or from the log
        #[arg(group = "sessions")]
        id: Option<u64>,
        /// All sessions of this user, or of whom else the log calls the subject: with 3000
        #[arg(long, value_name = "SUBJECT", group = "sessions")]
        subject: Option<String>,
        /// All sessions of the client with this address: with 3000
        #[arg(long, value_name = "ADDRESS", group = "sessions")]
        client: Option<std::net::IpAddr>,
        #[command(flatten)]
        control_args: ControlArgs,
    },
}

/// Options of the commands that talk to the running gateway.
#[derive(Debug, Args)]
struct ControlArgs {
    /// Path of the control socket, if the configuration doesn't name it
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the answer as JSON, one object per line
    #[arg(long)]
    json: bool,
}

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
    let arguments = Arguments::parse();
    let config = arguments.file.or(arguments.config);
    let Some(command) = arguments.command.or(arguments.test.then_some(CliCommand::Check {
        file: None,
        request: None,
        header: Vec::new(),
    })) else {
        if let Some(word) = config.as_deref().and_then(meant_as_command) {
            anyhow::bail!("{word:?} is neither a command nor a file; `wssgate --help` lists the commands");
        }
        let guard = log::start(arguments.log_format, &arguments.log).context("--log")?;
        let code = runtime.block_on(run_gateway(config, origin, signals));
        runtime.shutdown_background(); // a file system that hangs must not delay the end
        drop(guard); // writes what is left of the log
        return Ok(code);
    };
    runtime.block_on(async {
        tokio::select! {
            code = run_command(command, config) => code,
            _ = signals.ending() => Ok(ExitCode::FAILURE),
        }
    })
}

async fn run_command(command: CliCommand, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut whose = (None, None);
    let (name, target, id, control_args) = match command {
        CliCommand::Check { file, request, header } => {
            return check(file.or(config), request.as_deref(), &header).await;
        }
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
    let request = Request { command: name.to_owned(), target, id, subject: whose.0, client: whose.1 };
    let (out, err) = (&mut std::io::stdout().lock(), &mut std::io::stderr().lock());
    let done = control::client::ask(&socket, &request, control_args.json, out, err).await?;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An argument that is not a file and doesn't look like a path: probably a misspelt command.
fn meant_as_command(file: &Path) -> Option<&str> {
    let word = file.to_str()?;
    (!word.contains(['/', '.']) && !file.exists()).then_some(word)
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
    lifecycle::look_up_names(&mut candidate).await;
    let tables = tables(&candidate, net_io::unix_now());
    std::io::stdout().write_all(tables.as_bytes()).context("stdout")?;
    Ok(ExitCode::SUCCESS)
}

async fn run_gateway(config: Option<PathBuf>, origin: LaunchContext, signals: Signals) -> ExitCode {
    let (source, demo) = match config {
        Some(file) => (ConfigSource::File(file), None),
        None => match Demo::prepare() {
            Ok(demo) => (demo.source.clone(), Some(demo)),
            Err(e) => {
                error!(cause = %e, "the demonstration can't start; give a configuration with --config FILE");
                return ExitCode::FAILURE;
            }
        },
    };
    let on_ready = |_: &[std::net::SocketAddr]| {
        if let Some(demo) = &demo {
            introduce(demo);
        }
    };
    match lifecycle::run(source, origin, signals, on_ready).await {
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
    }
}

/// Written to stdout, for people; the log goes to stderr.
fn introduce(demo: &Demo) {
    info!(certificate = %demo.certificate.display(), made = demo.made, "no configuration was given: this is the demonstration");
    let _ = writeln!(
        std::io::stdout(),
        "\n  No configuration file was given (--config FILE), so this is the demonstration.\n\n  \
         Open  {page}\n  Echo  {echo}\n\n  \
         Its certificate is valid for this machine only, and browsers don't trust it: accept the warning,\n  \
         or trust the certificate. For instance:\n\n    \
         curl --cacert {file} {page}\n    \
         certutil -d sql:$HOME/.pki/nssdb -A -t P,, -n wssgate-dev -i {file}   # Chromium on Linux\n",
        page = demo.page,
        echo = demo.echo,
        file = demo.certificate.display(),
    );
}
