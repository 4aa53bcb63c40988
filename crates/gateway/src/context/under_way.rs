//! What a worker has under way beside its sessions. It is looked at when another process takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts of one worker.
#[derive(Debug, Default)]
pub struct UnderWay {
    /// Requests and sessions, over HTTP/1.1 and over HTTP/2.
    exchanges: [AtomicUsize; 2],
    /// Answers that are streams of events, over both.
    event_streams: [AtomicUsize; 2],
    /// Connections over HTTP/2.
    http2_connections: AtomicUsize,
}

/// Counts as long as it lives.
#[derive(Debug)]
pub struct Counts {
    under_way: Arc<UnderWay>,
    which: Which,
}

#[derive(Debug, Clone, Copy)]
enum Which {
    EventStream { http2: bool },
    Http2Connection,
}

/// How much it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Requests and sessions.
    pub exchanges: usize,
    /// Those of them that are streams of events.
    pub event_streams: usize,
    /// Tasks that will open no session over HTTP/1.1.
    pub settled: usize,
}

impl UnderWay {
    /// A request or session has begun.
    pub fn began(&self, http2: bool) {
        self.exchanges[usize::from(http2)].fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub fn ended(&self, http2: bool) {
        self.exchanges[usize::from(http2)].fetch_sub(1, Ordering::Relaxed);
    }

    /// A request's answer is a stream of events.
    #[must_use]
    pub fn event_stream(self: &Arc<Self>, http2: bool) -> Counts {
        Counts::new(self, Which::EventStream { http2 })
    }

    /// A connection over HTTP/2 has begun.
    #[must_use]
    pub fn http2_connection(self: &Arc<Self>) -> Counts {
        Counts::new(self, Which::Http2Connection)
    }

    /// What there is at the moment.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let [exchanges, event_streams] = [&self.exchanges, &self.event_streams];
        Totals {
            exchanges: exchanges.iter().map(load).sum(),
            event_streams: event_streams.iter().map(load).sum(),
            settled: load(&self.http2_connections) + load(&exchanges[1]) + load(&event_streams[0]),
        }
    }

    fn counter(&self, which: Which) -> &AtomicUsize {
        match which {
            Which::EventStream { http2 } => &self.event_streams[usize::from(http2)],
            Which::Http2Connection => &self.http2_connections,
        }
    }
}

impl Counts {
    fn new(under_way: &Arc<UnderWay>, which: Which) -> Self {
        under_way.counter(which).fetch_add(1, Ordering::Relaxed);
        Self { under_way: under_way.clone(), which }
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.under_way.counter(self.which).fetch_sub(1, Ordering::Relaxed);
    }
}
