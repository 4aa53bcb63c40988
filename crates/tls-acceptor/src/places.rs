//! Where a plan's certificates come from: every directory in which something is looked up on the way
//! to a file, symbolic links followed step by step, and how each file stands.
//!
//! A link that is swapped is a change in the directory that holds the link: certbot's `live/` links
//! into `archive/`, Kubernetes swaps `..data`. A directory that vanishes is a change in the one above.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf, absolute};

use crate::client_auth::ClientAuthFiles;
use crate::load::Plan;
use crate::material::is_hidden;

/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// A picture of all files of a plan; two that are equal hold the same certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Directories, by their own names and not by links, with what matters in them.
    pub(crate) directories: BTreeMap<PathBuf, Entries>,
    /// `None`: can't be looked at.
    files: BTreeMap<PathBuf, Option<Standing>>,
}

/// What matters in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entries {
    All,
    These(BTreeSet<OsString>),
}

impl Entries {
    pub(crate) fn matter(&self, name: &OsStr) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

/// Whatever is written to a file or done to it changes one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Places {
    /// Looks around; blocks.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut places = Self::default();
        for named in &plan.named {
            let clients = named.client_auth.iter().flat_map(ClientAuthFiles::all);
            for file in named.chain.iter().chain([&named.key]).chain(clients) {
                places.file(file);
            }
        }
        for awaited in &plan.awaited {
            places.file(&awaited.file);
        }
        for directory in plan.on_demand.iter().chain(&plan.directory) {
            places.tree(directory);
        }
        places
    }

    /// A directory with everything below it that isn't hidden.
    fn tree(&mut self, path: &Path) {
        let Some(directory) = self.follow(path) else { return };
        if self.directories.insert(directory.clone(), Entries::All) == Some(Entries::All) {
            return; // links may lead around in circles
        }
        let Ok(entries) = fs::read_dir(&directory) else { return };
        for entry in entries.flatten().filter(|entry| !is_hidden(&entry.file_name())) {
            let path = entry.path();
            if fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
                self.tree(&path);
            } else {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        self.follow(path);
        let standing = fs::metadata(path).ok().map(|found| Standing {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        self.files.insert(path.to_owned(), standing);
    }

    /// Walks along `path`, noting each directory and the entry that is looked up in it. Returns where
    /// it leads, free of links; `None` if it leads nowhere.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut ahead = Vec::new();
        let push = |ahead: &mut Vec<OsString>, path: &Path| {
            ahead.extend(path.components().rev().filter_map(|component| match component {
                Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
                _ => None,
            }));
        };
        push(&mut ahead, &absolute(path).ok()?);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let entries = self.directories.entry(at.clone()).or_insert(Entries::These(BTreeSet::new()));
            if let Entries::These(names) = entries {
                names.insert(name.clone());
            }
            let next = at.join(&name);
            if !fs::symlink_metadata(&next).ok()?.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = fs::read_link(&next).ok()?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            push(&mut ahead, &target);
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::load::Named;

    struct Tree {
        _temp: tempfile::TempDir,
        root: PathBuf,
    }

    impl Tree {
        fn new() -> Self {
            let temp = tempfile::TempDir::new().unwrap();
            Self { root: temp.path().canonicalize().unwrap(), _temp: temp }
        }

        fn write(&self, file: &str) {
            let path = self.root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }

        fn link(&self, target: &str, link: &str) {
            let path = self.root.join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        /// What matters below the root: `name/*` for everything.
        fn shown(&self, plan: &Plan) -> Vec<String> {
            let places = Places::of(plan);
            let below = places.directories.iter().filter_map(|(path, entries)| {
                let path = path.strip_prefix(&self.root).ok()?.to_str()?;
                Some(match entries {
                    Entries::All => format!("{path}/*"),
                    Entries::These(names) => {
                        let names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
                        format!("{path}/{}", names.join("|"))
                    }
                })
            });
            below.collect()
        }
    }

    #[test]
    fn certbot() {
        let tree = Tree::new();
        tree.write("archive/a.test/cert1.pem");
        tree.write("archive/a.test/cert2.pem");
        tree.link("../../archive/a.test/cert2.pem", "live/a.test/cert.pem");
        let shown = tree.shown(&Plan::directory(tree.root.join("live")));
        assert_eq!(
            shown,
            ["/archive|live", "archive/a.test", "archive/a.test/cert2.pem", "live/*", "live/a.test/*"]
        );
    }

    #[test]
    fn kubernetes() {
        let tree = Tree::new();
        tree.write("certs/..2024/tls.crt");
        tree.link("..2024", "certs/..data");
        tree.link("..data/tls.crt", "certs/tls.crt");
        let shown = tree.shown(&Plan::directory(tree.root.join("certs")));
        assert_eq!(shown, ["/certs", "certs/*", "certs/..2024/tls.crt"]);
        let named = Named {
            chain: vec![tree.root.join("certs/tls.crt")],
            key: tree.root.join("gone/key"),
            client_auth: None,
        };
        let shown = tree.shown(&Plan { named: vec![named], ..Plan::default() });
        assert_eq!(shown, ["/certs|gone", "certs/..2024|..data|tls.crt", "certs/..2024/tls.crt"]);
    }

    #[test]
    fn what_leads_nowhere_or_in_circles() {
        let tree = Tree::new();
        tree.link("..", "certs/up");
        tree.link("self", "certs/self");
        tree.link("elsewhere/cert.pem", "certs/dangling");
        let shown = tree.shown(&Plan::directory(tree.root.join("certs")));
        assert_eq!(shown, ["/*", "certs/*"]);
        let shown = tree.shown(&Plan::directory(tree.root.join("nowhere/below")));
        assert_eq!(shown, ["/nowhere"]);
    }

    #[test]
    fn every_change_makes_another_picture() {
        let tree = Tree::new();
        tree.write("a.pem");
        let plan = Plan::directory(&tree.root);
        let mut last = Places::of(&plan);
        assert_eq!(last, Places::of(&plan));
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(tree.root.join("a.pem"), "other").unwrap(),
            &|| tree.write("b.pem"),
            &|| fs::rename(tree.root.join("b.pem"), tree.root.join("a.pem")).unwrap(),
            &|| fs::remove_file(tree.root.join("a.pem")).unwrap(),
        ];
        for change in changes {
            change();
            let now = Places::of(&plan);
            assert_ne!(now, last);
            last = now;
        }
    }
}
