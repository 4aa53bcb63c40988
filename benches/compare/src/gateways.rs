//! The gateways of `gateways.toml`: found, configured, started.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::access_log::AccessLog;
use crate::child::Child;
use crate::job::Work;
use crate::process;
use crate::rows::Row;
use crate::setup::Site;
use crate::template::fill;

/// What the entry of wssgate is called.
const OURS: &str = "wssgate";

/// How often a start is tried: another process may take the port before the gateway does.
const ATTEMPTS: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    gateway: Vec<Gateway>,
}

/// A step of how a gateway is replaced.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Step {
    /// A signal to the process that was started, or to the one in the file `pid`, as soon as there is also `after`.
    Signal { name: String, pid: Option<String>, after: Option<String> },
    /// It is ended by SIGTERM and started again.
    Again,
}

/// One entry; `gateways.toml` says what the keys mean.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    binary: String,
    package: Option<String>,
    version: Vec<String>,
    config: String,
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    pub(crate) reload: Reload,
    pub(crate) restart: Vec<Step>,
    log: Option<Log>,
    #[serde(default)]
    pub(crate) ours: bool,
    #[serde(default)]
    pub(crate) optional: bool,
    #[serde(default)]
    pub(crate) serves_files: bool,
}

/// How it writes an access log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    /// What stands in its configuration with the log, and without.
    on: String,
    off: String,
    /// Where the lines are.
    file: String,
}

/// How it is told to read its files again.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reload {
    /// To the process that was started.
    Signal(String),
    /// Arguments of the same binary.
    Command(Vec<String>),
}

impl Gateway {
    /// It has what this row is about.
    pub(crate) fn takes_part(&self, row: &Row) -> bool {
        (self.serves_files || !matches!(row.work, Work::File { .. })) && (self.log.is_some() || !row.logged)
    }

    /// The placeholders that aren't as they are by default while it writes an access log.
    pub(crate) fn logged(&self, logged: bool) -> Vec<(&'static str, String)> {
        let on = self.log.iter().map(|log| ("log", log.on.clone()));
        on.filter(|_| logged).collect()
    }

    /// It is built for the comparison, and not looked for.
    pub(crate) fn is_built(&self) -> bool {
        matches!(self.binary.as_str(), "{wssgate}" | "{unscanned}")
    }

    /// It is built without the scanner of frames.
    pub(crate) fn is_unscanned(&self) -> bool {
        self.binary == "{unscanned}"
    }
}

/// What was built of this workspace.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) wssgate: Option<PathBuf>,
    pub(crate) unscanned: Option<PathBuf>,
}

/// All entries that aren't optional, or those of the given names in that order. `NAME=PATH` is another
/// build of wssgate, to be held against.
pub(crate) fn catalogue(chosen: &[String]) -> anyhow::Result<Vec<Gateway>> {
    let text = fs::read_to_string(directory().join("gateways.toml")).context("gateways.toml")?;
    let all = toml::from_str::<Catalogue>(&text).context("gateways.toml")?.gateway;
    if chosen.is_empty() {
        return Ok(all.into_iter().filter(|gateway| !gateway.optional).collect());
    }
    let entry = |name: &str| {
        let found = all.iter().find(|gateway| gateway.name == name).cloned();
        found.with_context(|| format!("no gateway {name}"))
    };
    let find = |name: &String| match name.split_once('=') {
        None => entry(name),
        Some((name, path)) => {
            let (name, binary) = (name.to_owned(), path.to_owned());
            Ok(Gateway { name, binary, ours: false, optional: true, ..entry(OURS)? })
        }
    };
    chosen.iter().map(find).collect()
}

/// A gateway that is on this machine.
pub(crate) struct Installed {
    pub(crate) gateway: Gateway,
    binary: PathBuf,
    pub(crate) version: String,
}

/// Finds the binaries; an error names all that are missing.
pub(crate) fn find(gateways: Vec<Gateway>, built: &Built) -> anyhow::Result<Vec<Installed>> {
    let (mut installed, mut missing, mut packages) = (Vec::new(), Vec::new(), Vec::new());
    for gateway in gateways {
        let found = match gateway.binary.as_str() {
            "{wssgate}" => built.wssgate.clone(),
            "{unscanned}" => built.unscanned.clone(),
            "{compare}" => env::current_exe().ok(),
            name => search(name),
        };
        let Some(binary) = found else {
            missing.push(gateway.name);
            packages.extend(gateway.package);
            continue;
        };
        let version = version(&binary, &gateway.version)?;
        installed.push(Installed { gateway, binary, version });
    }
    ensure!(
        missing.is_empty(),
        "not installed: {}\ninstall them with: apt-get install --no-install-recommends {}\n\
         or leave them out with: --gateways",
        missing.join(", "),
        packages.join(" ")
    );
    Ok(installed)
}

fn search(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where an ordinary user's PATH doesn't look.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn version(binary: &Path, args: &[String]) -> anyhow::Result<String> {
    let output = Command::new(binary).args(args).output().with_context(|| binary.display().to_string())?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or("unknown").trim().to_owned())
}

/// A gateway at work.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// The reload's command, if it is one, and the environment for it.
    pub(crate) reload: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) port: u16,
    /// Where all its processes work.
    pub(crate) dir: PathBuf,
    pub(crate) pids: Vec<Pid>,
    /// From its start to the first connection, in steps of some 10 ms.
    pub(crate) took: Duration,
    log: PathBuf,
    binary: PathBuf,
    args: Vec<String>,
    values: Vec<(&'static str, String)>,
}

impl Running {
    /// Ends it in order, and starts it once more as it was.
    pub(crate) async fn again(&mut self, cores: &[usize]) -> anyhow::Result<()> {
        kill(self.child.pid, Signal::SIGTERM)?;
        self.child.process.wait().await?;
        self.child = spawn(cores, &self.binary, &self.args, &self.env, &self.dir, &self.log)?;
        Ok(())
    }

    /// A text with its placeholders filled.
    pub(crate) fn fill(&self, text: &str) -> anyhow::Result<String> {
        fill(text, &self.values)
    }

    pub(crate) fn raw_pids(&self) -> Vec<i32> {
        self.pids.iter().copied().map(Pid::as_raw).collect()
    }

    /// Its access log from here on; `None` if it writes none.
    pub(crate) fn access_log(&self, gateway: &Gateway) -> anyhow::Result<Option<AccessLog>> {
        let Some(log) = &gateway.log else { return Ok(None) };
        AccessLog::from_its_end(Path::new(&self.fill(&log.file)?)).map(Some)
    }

    /// The last lines that it wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Installed {
    /// Starts it in front of a backend and waits until it accepts connections. `values` are
    /// placeholders that aren't to be as they are by default; those of the defaults are filled in them.
    pub(crate) async fn start(
        &self,
        site: &Site,
        backend: u16,
        cores: &[usize],
        values: &[(&'static str, String)],
    ) -> anyhow::Result<Running> {
        let name = &self.gateway.name;
        let mut last_words = String::new();
        for _ in 0..ATTEMPTS {
            let mut running = self.spawn(site, backend, cores, values).with_context(|| name.clone())?;
            let started = Instant::now();
            for _ in 0..3000 {
                // A daemon leaves in order who started it.
                if running.child.has_failed() {
                    break;
                }
                if TcpStream::connect((Ipv4Addr::LOCALHOST, running.port)).await.is_ok() {
                    running.took = started.elapsed();
                    // Time for workers to be forked and for what a start leaves to be done.
                    sleep(Duration::from_millis(300)).await;
                    running.pids = process::working_in(&running.dir);
                    return Ok(running);
                }
                sleep(Duration::from_millis(10)).await;
            }
            last_words = running.last_words();
        }
        bail!("{name} doesn't start:\n{last_words}")
    }

    fn spawn(
        &self,
        site: &Site,
        backend: u16,
        cores: &[usize],
        values: &[(&'static str, String)],
    ) -> anyhow::Result<Running> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let dir = site.dir.path().join(format!("{}-{port}", self.gateway.name));
        fs::create_dir_all(&dir)?;
        let config = dir.join(&self.gateway.config);
        let text = |path: &Path| path.display().to_string();
        let defaults = [
            ("port", port.to_string()),
            ("backend", backend.to_string()),
            ("chain", text(&site.chain)),
            ("key", text(&site.key)),
            ("bundle", text(&site.bundle)),
            ("config", text(&config)),
            ("dir", text(&dir)),
            ("files", site.files.to_string()),
            ("www", text(&site.www)),
            ("sessions", ((site.files - 500) / 2).to_string()),
            ("wssgate", text(&self.binary)),
            ("workers", "1".to_owned()),
            ("directory", String::new()),
            ("more", String::new()),
            ("daemon", "off".to_owned()),
            ("log", self.gateway.log.as_ref().map(|log| log.off.clone()).unwrap_or_default()),
        ];
        let values = values.iter().map(|(name, value)| Ok((*name, fill(value, &defaults)?)));
        let values = [values.collect::<anyhow::Result<Vec<_>>>()?, defaults.to_vec()].concat(); // the first of a name counts
        let template = directory().join("gateways").join(&self.gateway.config);
        let template = fs::read_to_string(&template).with_context(|| text(&template))?;
        fs::write(&config, fill(&template, &values)?)?;

        let args = self.gateway.args.iter().map(|arg| fill(arg, &values)).collect::<Result<Vec<_>, _>>()?;
        let mut env = Vec::new();
        for (key, value) in &self.gateway.env {
            env.push((key.clone(), fill(value, &values)?));
        }
        let mut reload = vec![self.binary.clone().into_os_string()];
        if let Reload::Command(args) = &self.gateway.reload {
            for arg in args {
                reload.push(fill(arg, &values)?.into());
            }
        }
        let log = dir.join("log");
        File::create(&log)?;
        let binary = self.binary.clone();
        let child = spawn(cores, &binary, &args, &env, &dir, &log)?;
        let (pids, took) = (Vec::new(), Duration::ZERO);
        Ok(Running { child, reload, env, port, dir, pids, took, log, binary, args, values })
    }
}

fn spawn(
    cores: &[usize],
    binary: &Path,
    args: &[String],
    env: &[(String, String)],
    dir: &Path,
    log: &Path,
) -> anyhow::Result<Child> {
    let open = || File::options().append(true).open(log);
    let (out, err) = (open()?, open()?);
    Child::spawn(cores, OsStr::new(binary), args, |command| {
        command.envs(env.iter().cloned()).current_dir(dir).stdout(out).stderr(err);
    })
}

fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        let all = catalogue(&[]).unwrap();
        assert_eq!(all.iter().filter(|gateway| gateway.ours).count(), 1);
        let names = ["unscanned", "pooled", "floor"].map(str::to_owned);
        for gateway in all.iter().chain(&catalogue(&names).unwrap()) {
            let template = directory().join("gateways").join(&gateway.config);
            let text = fs::read_to_string(template).unwrap();
            assert_eq!(gateway.log.is_some(), text.contains("{log}"), "{}", gateway.name);
        }
        let chosen = catalogue(&["caddy".to_owned(), "nginx".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|g| &g.name).collect::<Vec<_>>(), ["caddy", "nginx"]);
        assert!(catalogue(&["apache".to_owned()]).is_err());
        let chosen = catalogue(&["before=/some/where".to_owned()]).unwrap();
        assert_eq!((chosen[0].name.as_str(), chosen[0].binary.as_str()), ("before", "/some/where"));
        assert!(chosen[0].optional && !chosen[0].ours);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let mut gateway = catalogue(&["nginx".to_owned()]).unwrap().remove(0);
        gateway.binary = "no-such-program".to_owned();
        let error = find(vec![gateway], &Built::default()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not installed: nginx") && error.contains("apt-get install"), "{error}");
    }
}
