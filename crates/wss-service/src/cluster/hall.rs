//! The sessions of this process, as the rest of the cluster sees them: what comes for them is judged and delivered, and
//! what is wrong is dropped, counted, and logged at most every ten seconds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Inbox;
use crate::elsewhere::{BadLine, Channel, Publisher, decode, line_max, own_mark};
use crate::hub::{Hub, To};
use crate::log;

/// Between two lines of the log about what was dropped.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Hall(Arc<Inner>);

struct Inner {
    hub: Hub,
    publisher: Publisher,
    own_mark: Vec<u8>,
    /// When something was last logged, and how much has been dropped since.
    complaints: Mutex<(Option<Instant>, u64)>,
}

impl Hall {
    pub(super) fn new(hub: Hub, publisher: Publisher) -> Self {
        let own_mark = own_mark(publisher.process());
        Self(Arc::new(Inner { hub, publisher, own_mark, complaints: Mutex::default() }))
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// Delivers a line to those whom it is for. No session is waited for.
    fn deliver(&self, channel: &[u8], line: &[u8]) -> Result<(), BadLine> {
        let publisher = self.publisher();
        let channel = str::from_utf8(channel).ok().and_then(|name| publisher.channels().parse(name));
        let channel = channel.ok_or(BadLine::Channel)?;
        let read = decode(line, publisher.message_max())?;
        if read.from.as_deref() == Some(publisher.process()) {
            return Ok(());
        }
        let to = match channel {
            Channel::All => To::All,
            Channel::Session => To::Session(read.session.ok_or(BadLine::Session)?),
            Channel::User(user) => To::User(user),
            Channel::Group(group) => To::Group(group),
        };
        let missed = self.hub().deliver_here(to, read.message).missed as u64;
        publisher.numbers().missed.fetch_add(missed, Ordering::Relaxed);
        Ok(())
    }

    fn drop_line(&self, bad: &BadLine) {
        self.publisher().numbers().dropped.fetch_add(1, Ordering::Relaxed);
        self.complain("a message from the cluster was dropped", bad);
    }

    /// Says that something was dropped or refused, if nothing was said of it lately.
    pub(super) fn complain(&self, what: &'static str, cause: &dyn std::fmt::Display) {
        let mut complaints = self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, since) = &mut *complaints;
        *since += 1;
        if last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            log::cluster_complaint(what, cause, *since);
            (*last, *since) = (Some(Instant::now()), 0);
        }
    }
}

impl Inbox for Hall {
    fn receive(&self, channel: &[u8], line: &[u8]) {
        if line.starts_with(&self.0.own_mark) {
            return; // delivered when it was sent
        }
        if let Err(bad) = self.deliver(channel, line) {
            self.drop_line(&bad);
        }
    }

    fn skip(&self, len: usize) {
        self.drop_line(&BadLine::TooLong { len });
    }

    fn line_max(&self) -> usize {
        line_max(self.publisher().message_max())
    }

    fn count(&self, name: &str) -> usize {
        let hub = self.hub();
        match name.split_once(':') {
            Some(("user", user)) => hub.count(To::User(user)),
            Some(("group", group)) => hub.count(To::Group(group)),
            _ if name == "all" => hub.count(To::All),
            _ => 0,
        }
    }
}
