//! Channels as subjects of NATS. Pure.
//!
//! A subject may have no spaces, and `.`, `*` and `>` have a meaning in it. In the name of a channel these, `%`, and all but
//! visible ASCII are written as in URLs: `group:tea time` is `group:tea%20time`. A `.` of the prefix means what it means to NATS.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

const IN_PREFIX: &AsciiSet = &CONTROLS.add(b' ').add(b'*').add(b'>').add(b'%');
const IN_NAME: &AsciiSet = &IN_PREFIX.add(b'.');

/// The subjects of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
    /// As it is written in subjects.
    written: String,
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Self {
        let written = utf8_percent_encode(prefix, IN_PREFIX).to_string();
        Self { prefix: prefix.to_owned(), written }
    }

    /// The subject of a channel, whose name begins with the prefix.
    pub(super) fn of_channel(&self, channel: &str) -> String {
        self.of_name(channel.strip_prefix(&self.prefix).unwrap_or(channel))
    }

    /// The subject of a channel, by its name without the prefix.
    pub(super) fn of_name(&self, name: &str) -> String {
        format!("{}{}", self.written, utf8_percent_encode(name, IN_NAME))
    }

    /// The channel of a subject; `None`: it is none of this cluster's.
    pub(super) fn to_channel(&self, subject: &str) -> Option<String> {
        let name = percent_decode_str(subject.strip_prefix(&self.written)?).decode_utf8().ok()?;
        Some(format!("{}{name}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn subjects_lead_back_to_their_channels(prefix: String, name: String) {
            let (prefix, subjects) = (format!("chat{prefix}"), Subjects::new(&format!("chat{prefix}")));
            let channel = format!("{prefix}group:{name}");
            let subject = subjects.of_channel(&channel);
            prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && !b"*>".contains(&b)));
            prop_assert_eq!(subject.matches('.').count(), prefix.matches('.').count());
            prop_assert_eq!(subjects.to_channel(&subject), Some(channel));
        }
    }

    #[test]
    fn subjects_look_like_this() {
        let subjects = Subjects::new("a.chat:");
        assert_eq!(subjects.of_channel("a.chat:group:tea time 5.0"), "a.chat:group:tea%20time%205%2E0");
        assert_eq!(subjects.of_name("alive"), "a.chat:alive");
        assert_eq!(subjects.to_channel("a.chat:group:%FF"), None);
        assert_eq!(subjects.to_channel("b.chat:all"), None);
    }
}
