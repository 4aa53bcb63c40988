//! Where programs of this machine look for authorities: NSS databases of browsers, and Debian's ca-certificates.
//!
//! Databases are changed by NSS' own `certutil`, and the system's bundle by `update-ca-certificates`: their formats are
//! theirs.

use std::env;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::authority::Authority;

/// Where Chromium looks, in the user's home.
const CHROMIUM: [&str; 3] = [".pki/nssdb", ".local/share/pki/nssdb", "snap/chromium/current/.pki/nssdb"];
/// Where the profiles of Firefox are.
const FIREFOX: [&str; 4] = [
    ".mozilla/firefox",
    ".config/mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
];
/// Authorities of the administrator's (update-ca-certificates(8)).
const SYSTEM: &str = "/usr/local/share/ca-certificates";
const SYSTEM_TOOL: &str = "update-ca-certificates";

/// What became of one store.
#[derive(Debug)]
pub(super) enum Done {
    /// It has it now, or no longer has it.
    Changed(String),
    /// There is no such store here.
    Nothing(String),
    /// It could not be changed, and what to do.
    Failed(String),
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Changed(what) | Self::Nothing(what) | Self::Failed(what)) = self;
        f.write_str(what)
    }
}

/// All stores of this machine that this user has to do with.
#[derive(Debug)]
pub(super) struct Stores {
    home: Option<PathBuf>,
    is_root: bool,
}

impl Stores {
    pub(super) fn of_this_machine() -> Self {
        let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        Self { home, is_root: rustix::process::geteuid().is_root() }
    }

    /// Adds `authority` to each.
    pub(super) fn add(&self, authority: &Authority) -> Vec<Done> {
        let mut done = Vec::new();
        for database in self.databases(true) {
            done.push(add_to_database(&database, authority));
        }
        let place = Path::new(SYSTEM).join(authority.file_name());
        let steps = || {
            fs::copy(&authority.file, &place)?;
            fs::set_permissions(&place, Permissions::from_mode(0o644))?;
            update_system(false)
        };
        let by_hand =
            format!("install -m 0644 {} {} && {SYSTEM_TOOL}", authority.file.display(), place.display());
        done.push(self.system(steps, "added to", &by_hand));
        done
    }

    /// Takes `authority` out of each.
    pub(super) fn remove(&self, authority: &Authority) -> Vec<Done> {
        let mut done = Vec::new();
        for database in self.databases(false) {
            done.extend(remove_from_database(&database, authority));
        }
        let place = Path::new(SYSTEM).join(authority.file_name());
        if !place.exists() {
            return done;
        }
        let steps = || {
            fs::remove_file(&place)?;
            update_system(true)
        };
        let by_hand = format!("rm {} && {SYSTEM_TOOL} --fresh", place.display());
        done.push(self.system(steps, "removed from", &by_hand));
        done
    }

    /// Directories of NSS databases. `with_new`: one for Chromium, even if there is none yet.
    fn databases(&self, with_new: bool) -> Vec<PathBuf> {
        let Some(home) = &self.home else { return Vec::new() };
        let mut found: Vec<PathBuf> = CHROMIUM.iter().map(|place| home.join(place)).collect();
        let has_one = found.iter().any(|directory| is_database(directory));
        found.retain(|directory| is_database(directory));
        if with_new && !has_one {
            found.push(home.join(CHROMIUM[0]));
        }
        for place in FIREFOX {
            let profiles = fs::read_dir(home.join(place)).into_iter().flatten().flatten();
            let mut profiles: Vec<_> = profiles.map(|profile| profile.path()).collect();
            profiles.retain(|profile| is_database(profile));
            profiles.sort();
            found.append(&mut profiles);
        }
        found
    }

    fn system(&self, steps: impl FnOnce() -> io::Result<()>, what: &str, by_hand: &str) -> Done {
        // Others than root have no /usr/sbin in their path.
        let path = env::var_os("PATH").unwrap_or_default();
        let sbin = (!self.is_root).then(|| PathBuf::from("/usr/sbin"));
        let mut directories = env::split_paths(&path).chain(sbin);
        if !Path::new(SYSTEM).is_dir() || !directories.any(|directory| directory.join(SYSTEM_TOOL).is_file())
        {
            return Done::Nothing(format!(
                "not {what} the system's authorities: there is no {SYSTEM_TOOL} (Debian: apt install ca-certificates)"
            ));
        }
        if !self.is_root {
            let what = format!(
                "not {what} the system's authorities, which only root may change; for curl and others:"
            );
            return Done::Failed(format!("{what}\n  sudo sh -c '{by_hand}'"));
        }
        match steps() {
            Ok(()) => Done::Changed(format!("{what} the system's authorities ({SYSTEM})")),
            Err(e) => {
                Done::Failed(format!("not {what} the system's authorities: {e}; by hand:\n  {by_hand}"))
            }
        }
    }
}

fn is_database(directory: &Path) -> bool {
    directory.join("cert9.db").is_file()
}

fn update_system(is_fresh: bool) -> io::Result<()> {
    let mut update = Command::new(SYSTEM_TOOL);
    if is_fresh {
        update.arg("--fresh"); // else the link to a file that has gone stays
    }
    run(&mut update)
}

fn certutil(directory: &Path) -> Command {
    let mut database = std::ffi::OsString::from("sql:");
    database.push(directory);
    let mut certutil = Command::new("certutil");
    certutil.arg("-d").arg(database);
    certutil
}

fn add_to_database(directory: &Path, authority: &Authority) -> Done {
    let add = || {
        if !is_database(directory) {
            fs::create_dir_all(directory)?;
            run(certutil(directory).args(["-N", "--empty-password"]))?;
        }
        let mut add = certutil(directory);
        add.args(["-A", "-t", "C,,", "-n", &authority.name, "-i"]).arg(&authority.file);
        run(&mut add)
    };
    changed(add(), "added to", directory)
}

/// `None`: it isn't there.
fn remove_from_database(directory: &Path, authority: &Authority) -> Option<Done> {
    let is_there = run(certutil(directory).args(["-L", "-n", &authority.name]));
    if is_there.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
        return None;
    }
    let remove = is_there.and_then(|()| run(certutil(directory).args(["-D", "-n", &authority.name])));
    Some(changed(remove, "removed from", directory))
}

fn changed(result: io::Result<()>, what: &str, directory: &Path) -> Done {
    let directory = directory.display();
    match result {
        Ok(()) => Done::Changed(format!("{what} a browser's authorities ({directory})")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Done::Failed(format!(
            "not {what} {directory}: certutil is missing; install it (Debian: apt install libnss3-tools) and run this again"
        )),
        Err(e) => Done::Failed(format!("not {what} {directory}: {e}")),
    }
}

/// Its complaints are the error.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().to_string_lossy();
    Err(io::Error::other(format!("{program} failed: {}", said.trim())))
}
