//! The site of another server in our sections, and the text of them. Pure.

use super::sheet::Section;

/// A configuration of ours that is being put together.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// The keys of the top level, and what is said about the whole.
    pub head: Section,
    pub listeners: Vec<Section>,
    /// `[certificates]`
    pub certificates: Section,
    /// `[[certificate]]`
    pub named_certificates: Vec<Section>,
    /// `[log]`
    pub log: Section,
    /// `[dns]`
    pub dns: Section,
    pub upstreams: Vec<Section>,
    pub hosts: Vec<Host>,
}

/// What one virtual host of the other server has become.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Which one it was.
    pub title: String,
    /// What is said about it as a whole.
    pub notes: Section,
    pub routes: Vec<Section>,
}

impl Site {
    /// As a file.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.head.write(&mut out);
        self.listeners.iter().for_each(|section| section.write(&mut out));
        let once = [("[certificates]", &self.certificates), ("[log]", &self.log), ("[dns]", &self.dns)];
        for (title, section) in once.into_iter().filter(|(_, section)| !section.is_empty()) {
            let mut titled = Section::new(if section.has_no_keys() { "" } else { title });
            titled.append(section.clone());
            titled.write(&mut out);
        }
        self.named_certificates.iter().chain(&self.upstreams).for_each(|section| section.write(&mut out));
        for host in &self.hosts {
            let mut title = Section::default();
            title.comment(format!("---- {} ----", host.title));
            title.append(host.notes.clone());
            title.write(&mut out);
            host.routes.iter().for_each(|section| section.write(&mut out));
        }
        out
    }
}
