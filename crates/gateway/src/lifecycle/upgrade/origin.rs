//! What this process was given when it was started: its path, sockets from the service manager,
//! and perhaps another gateway to take over from.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, io};

use listenfd::ListenFd;
use rustix::fs::{Mode, OFlags};

/// In the environment of a process that takes over: which step of it this process is. The socket
/// to the old gateway is its standard input.
pub(crate) const STEP: &str = "WSSGATE_TAKEOVER";
/// Start the gateway and exit, so that the new process has no parent that waits for it: the service manager sees it end.
pub(crate) const LAUNCH: &str = "launch";
/// Be the gateway.
const TAKE: &str = "take";

/// What this process was given when it was started.
#[derive(Debug)]
pub struct LaunchContext {
    /// The path of the program, and its arguments.
    pub(crate) program: Program,
    /// Listening sockets of the service manager's, with the names it gave them.
    pub(crate) activated: Vec<Activated>,
    /// The socket to the gateway that is to be taken over.
    pub(crate) predecessor: Option<OwnedFd>,
}

/// A program and its arguments, to be started again as it is on disk by then.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Absolute. Not what `/proc/self/exe` says: that is the file that runs, even if it was replaced.
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A listening socket of the service manager's.
#[derive(Debug)]
pub(crate) struct Activated {
    pub(crate) name: String,
    pub(crate) socket: TcpListener,
}

/// Why what the process was given is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LaunchContextError {
    /// The variable was set by hand.
    #[error("{STEP} is set, but standard input is not a socket to a gateway: unset it ({0})")]
    NoPredecessor(io::Error),
    /// A socket unit with something else than TCP.
    #[error(
        "the service manager's socket {name:?} can't be used: {error}; only ListenStream= with an address and a port, or with a path, is supported"
    )]
    Activated {
        /// As the service manager calls it.
        name: String,
        /// What is wrong with it.
        error: io::Error,
    },
}

impl LaunchContext {
    /// Looks at the environment. To be called before there is any other thread.
    ///
    /// # Errors
    /// If something was given that is not what it should be.
    pub fn look() -> Result<Self, LaunchContextError> {
        let predecessor = match env::var_os(STEP) {
            Some(_) => Some(take_standard_input().map_err(LaunchContextError::NoPredecessor)?),
            None => None,
        };
        Ok(Self { program: Program::running(), activated: activated()?, predecessor })
    }

    /// There is a gateway to take over from.
    #[must_use]
    pub fn is_taking_over(&self) -> bool {
        self.predecessor.is_some()
    }
}

/// The step between two gateways. If this process is it, what it ends with.
#[must_use]
pub fn launch() -> Option<ExitCode> {
    if env::var_os(STEP)? != LAUNCH {
        return None;
    }
    let mut arguments = env::args_os();
    let program = arguments.next()?;
    // The socket goes on as standard input.
    let started = Command::new(&program).args(arguments).env(STEP, TAKE).spawn();
    Some(match started {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// The socket that is standard input; `/dev/null` takes its place.
fn take_standard_input() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&socket)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

fn activated() -> Result<Vec<Activated>, LaunchContextError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut sockets = ListenFd::from_env(); // checks LISTEN_PID
    (0..sockets.len())
        .map(|n| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or_else(|| format!("number {n}"));
            let found = sockets.take_tcp_listener(n).or_else(|_| {
                let unix = sockets.take_unix_listener(n)?;
                Ok(unix.map(|unix| OwnedFd::from(unix).into()))
            });
            let socket = found.and_then(|socket: Option<TcpListener>| {
                let socket = socket
                    .ok_or_else(|| io::Error::other("it is no socket of streams, or it was taken already"))?;
                if !rustix::net::sockopt::socket_acceptconn(&socket)? {
                    return Err(io::Error::other("it does not listen"));
                }
                Ok(socket)
            });
            match socket {
                Ok(socket) => Ok(Activated { name, socket }),
                Err(error) => Err(LaunchContextError::Activated { name, error }),
            }
        })
        .collect()
}

impl Program {
    fn running() -> Self {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = env::current_exe().unwrap_or_else(|_| PathBuf::from(&name));
        let here = env::current_dir().unwrap_or_default();
        let search = env::var_os("PATH").unwrap_or_default();
        let is_running = |path: &Path| match (path.canonicalize(), running.canonicalize()) {
            (Ok(path), Ok(running)) => path == running,
            _ => false,
        };
        let path = locate(&name, &here, &search, is_running).unwrap_or_else(|| running.clone());
        Self { path, arguments: arguments.collect() }
    }
}

/// The path by which a program was called: a symbolic link in it may lead elsewhere next time.
/// `None` if its name is not that of what `is_running`.
fn locate(name: &OsStr, here: &Path, search: &OsStr, is_running: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if Path::new(name).components().count() > 1 {
        candidates.push(here.join(name));
    } else if !name.is_empty() {
        candidates.extend(env::split_paths(search).map(|directory| here.join(directory).join(name)));
    }
    candidates.into_iter().find(|path| is_running(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_it_was_called() {
        #[track_caller]
        fn check(name: &str, running: &str, expect: Option<&str>) {
            let found =
                locate(OsStr::new(name), Path::new("/home/tom"), OsStr::new("/bin:/opt/bin:bin"), |path| {
                    path == Path::new(running)
                });
            assert_eq!(found.as_deref(), expect.map(Path::new));
        }
        check("/opt/bin/wssgate", "/opt/bin/wssgate", Some("/opt/bin/wssgate"));
        check("target/wssgate", "/home/tom/target/wssgate", Some("/home/tom/target/wssgate"));
        check("./wssgate", "/home/tom/./wssgate", Some("/home/tom/./wssgate"));
        check("wssgate", "/opt/bin/wssgate", Some("/opt/bin/wssgate"));
        check("wssgate", "/home/tom/bin/wssgate", Some("/home/tom/bin/wssgate"));
        // It was renamed.
        check("/usr/bin/other", "/opt/bin/wssgate", None);
        check("other", "/opt/bin/wssgate", None);
        check("", "/opt/bin/wssgate", None);
    }

    #[test]
    fn this_program_is_found() {
        let program = Program::running();
        assert_eq!(program.path.canonicalize().unwrap(), env::current_exe().unwrap().canonicalize().unwrap());
    }
}
