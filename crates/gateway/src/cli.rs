//! The command line, as clap reads it. What it does is in `main`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::import::Origin;
use crate::ops::control::tap::TapRequest;
use crate::ops::control::tap::watch::TapOptions;
use crate::quick::{Authority, Backend, Listen, Order, Service, public_host};
use crate::telemetry::log::Format;

const PROXY_EXAMPLES: &str = "\
Examples:
  wssgate proxy 8282                          wss://localhost:8443/ in front of ws://127.0.0.1:8282
  wssgate proxy ./app.sock --listen 9443      a Unix socket, at https://localhost:9443/
  wssgate proxy 8282 --host chat.domain.com   in production, with a certificate that renews itself
  wssgate proxy 8282 --write wssgate.toml     the same, with a configuration file to go on from";

const IMPORT_EXAMPLES: &str = "\
Examples:
  wssgate import nginx                              /etc/nginx/nginx.conf, and what it includes
  wssgate import nginx sites-enabled/chat.conf      one site
  wssgate import nginx --write wssgate.toml         into a file, to run `wssgate check wssgate.toml` on
  wssgate import apache                             /etc/apache2/apache2.conf, and what it includes";

const TAP_EXAMPLES: &str = "\
Examples:
  wssgate tap 4711                        the frames of one session, without what is in them
  wssgate tap 4711 --text                 with the first bytes of each as text
  wssgate tap --route /chat --next --text the next session of a route, from its beginning
  wssgate tap --client 192.0.2.7 --json   all live sessions of a client, for programs
  wssgate tap 4711 --write - | wireshark -k -i -";

/// An edge gateway for WebSockets over TLS.
///
/// Without a configuration file it runs a demonstration at https://localhost:8443/.
#[derive(Debug, Parser)]
#[command(name = "wssgate", version)]
pub struct Arguments {
    /// Configuration file; `wssgate FILE` does the same
    #[arg(long, short, value_name = "FILE", env = "WSSGATE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Configuration file
    #[arg(value_name = "FILE", hide = true)]
    pub file: Option<PathBuf>,
    /// Check the configuration, as `wssgate check` does
    #[arg(long, short, hide = true)]
    pub test: bool,
    /// Format of the log lines [default: live for proxy, files and echo, else text]
    #[arg(long, value_enum, env = "WSSGATE_LOG_FORMAT")]
    pub log_format: Option<Format>,
    /// Log level: error, warn, info, debug or trace, or directives of the tracing crate [default: info]
    #[arg(long, value_name = "LEVEL", env = "WSSGATE_LOG")]
    pub log: Option<String>,
    /// What to do; without a command, the gateway runs
    #[command(subcommand)]
    pub command: Option<AnyCommand>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum AnyCommand {
    /// Be a gateway.
    #[command(flatten)]
    Quick(QuickCommand),
    /// Something else.
    #[command(flatten)]
    Other(CliCommand),
}

/// Commands that run a gateway without a configuration file.
#[derive(Debug, Subcommand)]
pub enum QuickCommand {
    /// Put wss:// and https:// in front of a server, at https://localhost:8443/ or the next free port
    #[command(after_help = PROXY_EXAMPLES)]
    Proxy {
        /// A port of this machine, an address (10.0.0.7:8282, https://domain.com, tcp://127.0.0.1:5900), or a Unix socket
        #[allow(rustdoc::bare_urls, reason = "--help shows the text as it is")]
        #[arg(value_name = "SERVER")]
        backend: Backend,
        /// Where to listen, and what to write
        #[command(flatten)]
        quick_args: QuickArgs,
    },
    /// Serve the files of a directory over https://
    Files {
        /// The directory
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
        /// Where to listen, and what to write
        #[command(flatten)]
        quick_args: QuickArgs,
    },
    /// Serve a WebSocket that echoes, and a page to try it with
    Echo {
        /// Where to listen, and what to write
        #[command(flatten)]
        quick_args: QuickArgs,
    },
}

/// Commands about `[acme]`.
#[derive(Debug, Subcommand)]
pub enum AcmeCommand {
    /// Order all certificates once, and throw them away, to see whether it works
    ///
    /// Let's Encrypt is asked for certificates of its staging environment, whose limits are wide; another authority for real
    /// ones. The gateway has to be running with the same configuration, since it answers the authority.
    Try {
        /// Configuration file, if --config doesn't name it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only the certificate with this name, which may be one that clients ask for ([acme.on_demand]); may be repeated
        #[arg(long, value_name = "NAME", value_parser = public_host)]
        name: Vec<String>,
    },
}

/// Commands that run no gateway.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
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
    /// Print the configuration of another server as one for this gateway
    ///
    /// Each of its directives becomes a key, or a comment that says with file and line what the gateway does in its place, or
    /// what it means that there is nothing. What needs a look is said on stderr, and so is what `wssgate check` would
    /// refuse; then the exit code is 1.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The server
        #[arg(value_enum)]
        server: Origin,
        /// Which file, and where to write
        #[command(flatten)]
        import_args: ImportArgs,
    },
    /// Have this machine's browsers and programs trust the development certificate
    ///
    /// It makes an authority for names of this machine alone (localhost and its addresses), signs the development
    /// certificate, throws the authority's key away, and adds the authority to the stores of Chromium and Firefox and, as
    /// root, to the system's.
    Trust {
        /// Take the authority out of the stores again
        #[arg(long)]
        remove: bool,
    },
    /// Certificates that the gateway orders by itself
    #[command(subcommand)]
    Acme(AcmeCommand),
    /// Print all options of the configuration file, as Markdown
    Reference,
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print what a shell completes commands and options by
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    Manual {
        /// The directory, such as ~/.local/share/man/man1
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
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
    /// Look at the running gateway and its machine, and say what needs attention
    ///
    /// The exit code is 1 if something does. Looks at: descriptors, ports, queues, conntrack, the clock, certificates,
    /// names, servers, the log, addresses, and the configuration, if there is one.
    Doctor(ControlArgs),
    /// List live WebSocket sessions
    Sessions(ControlArgs),
    /// Show the servers that requests are passed on to
    Upstreams(ControlArgs),
    /// Show the frames of live WebSocket sessions as they pass; needs control.tap = true
    #[command(after_help = TAP_EXAMPLES)]
    Tap {
        /// Which sessions, and what of them
        #[command(flatten)]
        tap_args: TapArgs,
        /// Which gateway
        #[command(flatten)]
        control_args: ControlArgs,
    },
    /// Read the configuration and the certificates again, as SIGHUP does, and print the result
    Reload(ControlArgs),
    /// Close the sessions of a route or a backend, and send no new requests to it
    Drain {
        /// A route such as domain.com/wss or /wss, or a backend such as 127.0.0.1:8282
        #[arg(value_name = "ROUTE|SERVER")]
        target: Option<String>,
        /// Which gateway
        #[command(flatten)]
        control_args: ControlArgs,
    },
    /// Send requests to a drained route or backend again
    Undrain {
        /// The route or backend, as it was given to `drain`
        #[arg(value_name = "ROUTE|SERVER")]
        target: String,
        /// Which gateway
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
        /// Which gateway
        #[command(flatten)]
        control_args: ControlArgs,
    },
}

/// Options of the commands that talk to the running gateway.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Path of the control socket, if the configuration doesn't name it
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the answer as JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// What is imported.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Its configuration file [default: where Debian has it]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where relative names begin: those in `root` of nginx, and those of Apache [default: the directory of FILE]
    #[arg(long, value_name = "DIRECTORY")]
    pub prefix: Option<PathBuf>,
    /// Write the configuration to this file, which must not be there yet
    #[arg(long, short, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// Which sessions are tapped, and what is shown of them.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("tapped").required(true).multiple(true))]
pub struct TapArgs {
    /// The session's id, from `wssgate sessions` or from the log
    #[arg(group = "tapped", conflicts_with_all = ["route", "client", "next"])]
    pub id: Option<u64>,
    /// Sessions of this route: its name, or host and path
    #[arg(long, value_name = "ROUTE", group = "tapped")]
    pub route: Option<String>,
    /// Sessions of the client with this address
    #[arg(long, value_name = "ADDRESS", group = "tapped")]
    pub client: Option<std::net::IpAddr>,
    /// The next session that opens, from its first frame on, and no live one
    #[arg(long, group = "tapped")]
    pub next: bool,
    /// Show the first bytes of each payload as text [default: 120, at most 65536]
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true, default_missing_value = "120")]
    pub text: Option<usize>,
    /// Show the first bytes of each payload in hexadecimal [default: 32, at most 65536]
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true, default_missing_value = "32")]
    pub hex: Option<usize>,
    /// End after so many frames
    #[arg(long, value_name = "FRAMES")]
    pub count: Option<u64>,
    /// Also write the frames to this file, as pcapng for Wireshark; `-`: to the output, and nothing else
    #[arg(long, short, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

impl TapArgs {
    /// As the tap is asked for.
    #[must_use]
    pub fn into_options(self, json: bool) -> TapOptions {
        let Self { id, route, client, next, text, hex, count, write } = self;
        let which = TapRequest { route, client, next, ..TapRequest::default() };
        TapOptions { id, which, text, hex, count, write, json }
    }
}

/// Options of the commands that run without a configuration file.
#[derive(Debug, Args)]
pub struct QuickArgs {
    /// Serve this name to everyone: on port 443, with a certificate by ACME (Let's Encrypt, whose terms you agree to), and
    /// with port 80 leading there; may be repeated
    #[arg(long, value_name = "NAME", value_parser = public_host)]
    pub host: Vec<String>,
    /// A port of localhost, or an address such as 0.0.0.0:8443. With --host: another one than 443, for connections that are
    /// forwarded from there; port 80 is then left alone
    #[arg(long, short, value_name = "PORT|ADDRESS")]
    pub listen: Option<Listen>,
    /// Another authority than Let's Encrypt: the URL of its ACME directory
    #[arg(long, value_name = "URL", requires = "host")]
    pub acme_directory: Option<String>,
    /// A file with the certificate that the authority's own server is trusted by; without it, as the system does
    #[arg(long, value_name = "FILE", requires = "acme_directory")]
    pub acme_ca: Option<PathBuf>,
    /// Write the configuration to this file, and run by it
    #[arg(long, short, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

impl From<QuickCommand> for Order {
    fn from(command: QuickCommand) -> Self {
        let (service, quick_args) = match command {
            QuickCommand::Proxy { backend, quick_args } => (Service::Proxy(backend), quick_args),
            QuickCommand::Files { directory, quick_args } => (Service::Files(directory), quick_args),
            QuickCommand::Echo { quick_args } => (Service::Echo, quick_args),
        };
        let QuickArgs { host: hosts, listen, acme_directory, acme_ca, write } = quick_args;
        let authority = acme_directory.map(|directory| Authority { directory, ca: acme_ca });
        Self { service, hosts, listen, authority, write }
    }
}

/// What `shell` completes commands and options by.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "wssgate", &mut script);
    script
}

/// Writes a manual page for the program, and one for each of its commands; blocks.
///
/// # Errors
/// If a file can't be written.
pub fn write_manual(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Arguments::command(), directory)
}
