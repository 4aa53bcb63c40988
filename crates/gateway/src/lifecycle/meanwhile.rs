//! What operators want while sessions move to another process: both processes do it.

use std::collections::BTreeSet;
use std::io;

use tokio::sync::mpsc;
use tracing::warn;

use super::gateway::RunningGateway;
use super::signals::Signals;
use super::upgrade::leave::Meanwhile;
use super::upgrade::old::{Successor, TakeoverError};
use super::work::Wanted;
use crate::ops::control::protocol::{ControlResponse, DrainReport, Request};
use crate::ops::control::server::{Change, Operation, OperationRequest};

/// What may come while the main loop hands over.
pub(super) struct Arriving<'a> {
    pub(super) signals: &'a mut Signals,
    pub(super) demands: &'a mut mpsc::Receiver<OperationRequest>,
    pub(super) wanted: &'a mut Wanted,
}

/// Both processes, and what operators ask of them.
pub(super) struct BothProcesses<'a, 'b> {
    pub(super) gateway: &'a RunningGateway,
    pub(super) successor: &'a Successor,
    pub(super) arriving: &'a mut Arriving<'b>,
}

impl BothProcesses<'_, '_> {
    /// Tells the new process what has been drained, or is served again, since it was started.
    ///
    /// # Errors
    /// If it fails, or is of a release that can't be told.
    pub(super) async fn tell_drained(&mut self) -> Result<(), TakeoverError> {
        let Self { gateway, successor, .. } = self;
        let now: BTreeSet<_> = gateway.overview.drained.load().iter().map(ToString::to_string).collect();
        let told: BTreeSet<_> = successor.drained.iter().cloned().collect();
        let mut changes: Vec<_> = now.difference(&told).map(|target| ("drain", target)).collect();
        changes.extend(told.difference(&now).map(|target| ("undrain", target)));
        for (word, target) in changes {
            if !successor.takes_commands {
                return Err(TakeoverError::Drained(target.clone()));
            }
            if let Some(cause) = successor.obey(command(word, target.clone())).await?.error {
                warn!(what = target, cause, "the new process does not {word} what this one does");
            }
        }
        Ok(())
    }
}

impl Meanwhile for BothProcesses<'_, '_> {
    /// What has been asked for is done in both processes, and answered; also if the new one fails.
    async fn obey(&mut self) -> io::Result<()> {
        let Self { gateway, successor, arriving } = self;
        while let Ok(OperationRequest { what, reply }) = arriving.demands.try_recv() {
            let Operation::Change(what) = what else {
                arriving.wanted.reload = true;
                arriving.wanted.askers.push(reply);
                continue;
            };
            let there = match successor.takes_commands {
                true => successor.obey(request_of(&what)).await,
                false => Ok(ControlResponse::error("a takeover is in progress; try again when it is done")),
            };
            let answer = match &there {
                Err(_) => gateway.change(what),
                Ok(there) if there.ok => both(gateway.change(what), there),
                Ok(there) => match what {
                    // It may be this process that has the session.
                    Change::Close(_) => {
                        let here = gateway.change(what);
                        if here.closed.is_some() { here } else { there.clone() }
                    }
                    // What isn't drained there is soon served again.
                    Change::Drain(_) | Change::Undrain(_) => there.clone(),
                },
            };
            let _ = reply.send(answer); // the client may have gone
            there?;
        }
        Ok(())
    }
}

/// What the new process is told.
fn request_of(change: &Change) -> Request {
    match change {
        Change::Drain(target) => command("drain", target.to_string()),
        Change::Undrain(target) => command("undrain", target.to_string()),
        Change::Close(request) => request.clone(),
    }
}

fn command(word: &str, target: String) -> Request {
    Request { command: word.to_owned(), target: Some(target), ..Request::default() }
}

/// What two processes have done, of which each has some of the sessions.
fn both(here: ControlResponse, there: &ControlResponse) -> ControlResponse {
    if !here.ok {
        return there.clone();
    }
    let sessions = there.drain.as_ref().map_or(0, |report| report.sessions);
    let closed = there.closed_sessions.unwrap_or(0);
    ControlResponse {
        closed_sessions: here.closed_sessions.map(|count| count + closed),
        drain: here.drain.map(|report| DrainReport { sessions: report.sessions + sessions, ..report }),
        ..here
    }
}
