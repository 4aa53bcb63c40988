//! Names of channels. Pure.

use super::name::Name;

/// Bytes of a user's or a group's name that another process may hear of.
pub(crate) const NAME_MAX: usize = 1024;

/// Where a message of a cluster goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel<'a> {
    All,
    /// For one session, whose number the message has; whichever process it is in.
    Session,
    User(&'a str),
    Group(&'a str),
}

impl<'a> Channel<'a> {
    /// Channels that a process with such sessions listens to.
    pub(crate) fn of(name: &'a Name) -> impl Iterator<Item = Self> {
        let (first, second) = match name {
            Name::All => (Self::All, Some(Self::Session)),
            Name::User(user) => (Self::User(user), None),
            Name::Group(group) => (Self::Group(group), None),
        };
        std::iter::once(first).chain(second)
    }

    pub(crate) fn is_too_long(self) -> bool {
        match self {
            Self::All | Self::Session => false,
            Self::User(name) | Self::Group(name) => name.len() > NAME_MAX,
        }
    }
}

/// The channels of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    pub(crate) prefix: Box<str>,
}

impl Channels {
    pub(crate) fn name(&self, channel: Channel<'_>) -> String {
        let prefix = &self.prefix;
        match channel {
            Channel::All => format!("{prefix}all"),
            Channel::Session => format!("{prefix}session"),
            Channel::User(user) => format!("{prefix}user:{user}"),
            Channel::Group(group) => format!("{prefix}group:{group}"),
        }
    }

    /// `None`: it is none of this cluster's.
    pub(crate) fn parse<'a>(&self, name: &'a str) -> Option<Channel<'a>> {
        match name.strip_prefix(&*self.prefix)? {
            "all" => Some(Channel::All),
            "session" => Some(Channel::Session),
            name => match name.split_once(':')? {
                ("user", user) => Some(Channel::User(user)),
                ("group", group) => Some(Channel::Group(group)),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_channel_is_read_as_it_was_written(prefix: String, name: String) {
            let channels = Channels { prefix: prefix.into() };
            for channel in [Channel::All, Channel::Session, Channel::User(&name), Channel::Group(&name)] {
                let written = channels.name(channel);
                prop_assert_eq!(channels.parse(&written), Some(channel));
            }
        }
    }

    #[test]
    fn channels_of_others_are_none() {
        let channels = Channels { prefix: "chat:".into() };
        assert_eq!(channels.name(Channel::Group("tea:milk")), "chat:group:tea:milk");
        for name in ["", "all", "chat:", "chat:allx", "chat:users", "chat:room:a", "other:all"] {
            assert_eq!(channels.parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_process_listens_for_all_its_sessions_and_for_each() {
        let all: Vec<_> = Channel::of(&Name::All).collect();
        assert_eq!(all, [Channel::All, Channel::Session]);
        let name = Name::User("ann".into());
        assert_eq!(Channel::of(&name).collect::<Vec<_>>(), [Channel::User("ann")]);
    }
}
