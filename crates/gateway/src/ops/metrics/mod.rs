//! Metrics, collected at each request, as OpenMetrics 1.0 or as Prometheus' older text.
//!
//! Workers count in memory of their own (`net_io::count`); here their numbers are read and added up. That and the
//! writing of megabytes for a thousand routes is done by a thread of its own that gives way to every other, so that it
//! holds up no message. It compresses them, too, if the scraper takes that, as Prometheus does: what the main thread and
//! the kernel have to send is a twentieth then.

mod certificates;
mod format;
mod gateway;
mod page;
mod process;
mod routes;
mod servers;
mod workers;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::thread::Builder;
use std::{fmt, io};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, oneshot};

pub(crate) use self::format::Format;
use self::page::Page;
use crate::ops::overview::Overview;
use crate::site::route_id::RouteId;

/// One scrape at a time: others wait, and take no processor from anyone.
static TURN: Semaphore = Semaphore::const_new(1);
/// How the thread gives way: as the lowest there is.
const NICE: i32 = 19;

/// All figures as text, in the coding if there is one.
///
/// # Errors
/// If there is no thread for it.
///
/// # Cancel safety
/// Safe: a thread that has begun ends by itself, and what it has written is dropped.
pub(crate) async fn scrape(overview: &Arc<Overview>, format: Format, is_gzip: bool) -> io::Result<Bytes> {
    let _turn = TURN.acquire().await.map_err(io::Error::other)?;
    // Here, and not by a thread that gives way: workers take these locks too.
    let live = overview.live_by_route();
    let (reply, answer) = oneshot::channel();
    let figures = Figures { overview: overview.clone(), live };
    Builder::new().name("metrics".to_owned()).spawn(move || {
        // It may be forbidden, and then the thread takes what others take.
        let _ = rustix::process::nice(NICE);
        let _ = reply.send(write(figures, format, is_gzip));
    })?;
    answer.await.map_err(io::Error::other)?
}

fn write(figures: Figures, format: Format, is_gzip: bool) -> io::Result<Bytes> {
    let text = format.write(&registry(figures)).map_err(io::Error::other)?;
    if !is_gzip {
        return Ok(text.into());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish().map(Bytes::from)
}

fn registry(figures: Figures) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    registry
}

/// Everything that is shown.
#[derive(Debug)]
struct Figures {
    overview: Arc<Overview>,
    /// Live sessions by route.
    live: HashMap<RouteId, usize>,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (mut page, overview) = (Page::new(encoder), &*self.overview);
        gateway::write(&mut page, overview)?;
        routes::write(&mut page, overview, &self.live)?;
        servers::write(&mut page, overview)?;
        certificates::write(&mut page, overview)?;
        workers::write(&mut page, overview)?;
        process::write(&mut page, overview)
    }
}
