//! What waits to be sent to one client: filled from any task, emptied by the session's.
//!
//! In: frames, in the order of their senders. Out: as many as the endpoint has room for. At most
//! [`Settings::outbox_max`](crate::Settings::outbox_max) bytes wait, and not too many frames; [`SlowClient`] says what happens
//! to more.

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use frame_core::endpoint::SharedFrame;
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::closed::{Cause, CloseCode};
use crate::settings::SlowClient;

/// Why something is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The session has ended, or its end has begun.
    #[error("the session is over")]
    Over,
    /// The outbox is full, and the caller doesn't wait.
    #[error("the outbox of the session is full")]
    Full,
}

/// The end of a session, as the service itself wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    pub(crate) cause: Cause,
}

/// Where the session's task puts what it takes.
pub(crate) trait Sink {
    fn has_room(&self) -> bool;
    fn queue(&mut self, frame: &SharedFrame);
}

/// What is left when the sink is full.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Bytes that wait.
    pub(crate) bytes: usize,
    /// The session is to end now: all that was to be sent before has been taken.
    pub(crate) order: Option<Order>,
}

/// The outbox of one session.
#[derive(Debug)]
pub(crate) struct Outbox {
    max: usize,
    policy: SlowClient,
    state: Mutex<State>,
    /// Something was taken, or nothing will be any more.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Behind a message that is sent in parts: its parts come first.
    behind: Queue,
    /// A message is being sent in parts.
    is_open: bool,
    /// Nothing more is taken in.
    is_over: bool,
    /// Once the queue is empty.
    order: Option<Order>,
    dropped: u64,
    /// Of the session's task.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    frame: SharedFrame,
    /// A whole message, which may be dropped for a newer one.
    is_message: bool,
}

impl Outbox {
    pub(crate) fn new(max: usize, policy: SlowClient) -> Self {
        Self { max, policy, state: Mutex::default(), room: Notify::new() }
    }

    /// Queues a message, or does what the policy says.
    ///
    /// # Errors
    /// [`SendError::Full`] only where senders wait.
    pub(crate) fn offer(&self, frame: &SharedFrame) -> Result<(), SendError> {
        self.put(frame, true, self.policy)
    }

    /// Queues a message if there is room for it, whatever the policy is.
    ///
    /// # Errors
    /// [`SendError::Full`] if there is none.
    pub(crate) fn offer_room(&self, frame: &SharedFrame) -> Result<(), SendError> {
        self.put(frame, true, SlowClient::Wait)
    }

    /// Queues a control frame, which is short.
    pub(crate) fn offer_control(&self, frame: &SharedFrame) -> Result<(), SendError> {
        self.put(frame, false, SlowClient::Wait)
    }

    fn put(&self, frame: &SharedFrame, is_message: bool, policy: SlowClient) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.is_over || state.order.is_some() {
            return Err(SendError::Over);
        }
        if state.lacks_room(frame, self.max) {
            match policy {
                SlowClient::Wait => return Err(SendError::Full),
                SlowClient::DropOldest => {
                    state.drop_oldest(frame, self.max);
                    if state.lacks_room(frame, self.max) {
                        state.dropped += 1; // a message in parts takes all the room
                        return Ok(());
                    }
                }
                SlowClient::Close(code) => {
                    let reason = "too slow".into();
                    state.end(Order { code, reason, cause: Cause::SlowClient });
                    wake(state, ());
                    self.room.notify_waiters(); // for room that will not come
                    return Err(SendError::Over);
                }
            }
        }
        // A control frame may stand between the parts of a message (RFC 6455 §5.4).
        if state.is_open && is_message {
            state.behind.push(frame, is_message);
        } else {
            state.queue.push(frame, is_message);
        }
        wake(state, Ok(()))
    }

    /// Queues a message, and waits for room if the policy says so.
    ///
    /// # Cancel safety
    /// Safe: the frame is queued whole or not at all.
    pub(crate) async fn send(&self, frame: &SharedFrame) -> Result<(), SendError> {
        match self.offer_room(frame) {
            Err(SendError::Full) if self.policy == SlowClient::Wait => {
                self.when_room(|| self.offer(frame)).await
            }
            Err(SendError::Full) => {
                // The session's own task may be what sends: it writes first. Only what it has no room for then is too much.
                yield_now().await;
                self.offer(frame)
            }
            done => done,
        }
    }

    /// Tries again whenever there is more room.
    async fn when_room<T>(&self, try_: impl Fn() -> Result<T, SendError>) -> Result<T, SendError> {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable(); // before the look: what changes after it is heard of
            match try_() {
                Err(SendError::Full) => room.await,
                done => return done,
            }
        }
    }

    /// Begins a message in parts, when no other one is open.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn open_message(&self) -> Result<(), SendError> {
        self.when_room(|| {
            let mut state = self.lock();
            if state.is_over || state.order.is_some() {
                return Err(SendError::Over);
            }
            if state.is_open {
                return Err(SendError::Full);
            }
            state.is_open = true;
            Ok(())
        })
        .await
    }

    /// Queues a part of the open message; waits for room, whatever the policy is. `fin`: it is the last one.
    ///
    /// # Cancel safety
    /// Safe, as [`Self::send`].
    pub(crate) async fn send_part(&self, frame: &SharedFrame, fin: bool) -> Result<(), SendError> {
        self.when_room(|| {
            let mut state = self.lock();
            if state.is_over || state.order.is_some() {
                return Err(SendError::Over);
            }
            // What waits behind the message must not keep it from going on.
            let before = state.queue.bytes;
            let has_frames = state.queue.frames.len() >= frames_max(self.max);
            if before > 0 && (has_frames || before + frame.wire_len() > self.max) {
                return Err(SendError::Full);
            }
            state.queue.push(frame, false);
            if fin {
                state.close_message();
            }
            wake(state, Ok(()))
        })
        .await?;
        if fin {
            self.room.notify_waiters(); // the next one may begin
        }
        Ok(())
    }

    /// Ends the session when what was queued before has been sent.
    pub(crate) fn close(&self, order: Order) {
        let mut state = self.lock();
        if !state.is_over && state.order.is_none() {
            state.order = Some(order);
            wake(state, ());
            self.room.notify_waiters();
        }
    }

    /// Ends the session now; what was queued is dropped.
    pub(crate) fn close_now(&self, order: Order) {
        let mut state = self.lock();
        if !state.is_over {
            state.end(order);
            wake(state, ());
            self.room.notify_waiters();
        }
    }

    /// The session is over: nothing is taken in any more, and no sender waits.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.order = None;
        state.clear();
        drop(state);
        self.room.notify_waiters();
    }

    /// The same if nothing is left of what was taken in; else nothing changes.
    pub(crate) fn end_if_empty(&self) -> bool {
        let mut state = self.lock();
        if state.bytes() > 0 || state.is_open || state.order.is_some() {
            return false;
        }
        state.is_over = true;
        drop(state);
        self.room.notify_waiters();
        true
    }

    /// Waits until nothing more is taken in.
    pub(crate) async fn over(&self) {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable(); // before the look
            if self.is_over() {
                return;
            }
            room.await;
        }
    }

    /// Moves frames to the sink while it has room. The task of `cx` is woken when there are more.
    pub(crate) fn take_into(&self, sink: &mut impl Sink, cx: &Context<'_>) -> Left {
        let mut state = self.lock();
        let before = state.bytes();
        while sink.has_room()
            && let Some(frame) = state.queue.pop()
        {
            sink.queue(&frame);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let bytes = state.bytes();
        let order = if state.queue.frames.is_empty() { state.order.take() } else { None };
        state.is_over |= order.is_some();
        // All who wait look at once, so they are not woken for each little that a client takes. What waits behind a message
        // in parts doesn't count: its parts need the room.
        let is_worth_a_look = bytes < before && state.queue.bytes <= self.max / 2;
        drop(state);
        if is_worth_a_look {
            self.room.notify_waiters();
        }
        Left { bytes, order }
    }

    /// Something can be moved to a sink that has room.
    pub(crate) fn has_more(&self) -> bool {
        let state = self.lock();
        !state.queue.frames.is_empty() || state.order.is_some()
    }

    /// Nothing more is taken in.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.is_over || state.order.is_some()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// Messages that were dropped for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames that may wait: one of few bytes takes more memory than they are.
fn frames_max(bytes_max: usize) -> usize {
    16 + bytes_max / 64
}

/// Wakes the session's task, without the lock.
fn wake<T>(mut state: MutexGuard<'_, State>, result: T) -> T {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    result
}

impl State {
    fn bytes(&self) -> usize {
        self.queue.bytes + self.behind.bytes
    }

    fn lacks_room(&self, frame: &SharedFrame, max: usize) -> bool {
        let frames = self.queue.frames.len() + self.behind.frames.len();
        self.bytes() > 0 && (self.bytes() + frame.wire_len() > max || frames >= frames_max(max))
    }

    fn drop_oldest(&mut self, frame: &SharedFrame, max: usize) {
        while self.lacks_room(frame, max) && (self.queue.drop_oldest() || self.behind.drop_oldest()) {
            self.dropped += 1;
        }
    }

    /// The message in parts is whole.
    fn close_message(&mut self) {
        self.is_open = false;
        let behind = mem::take(&mut self.behind);
        self.queue.frames.extend(behind.frames);
        self.queue.bytes += behind.bytes;
    }

    fn end(&mut self, order: Order) {
        self.order = Some(order);
        self.clear();
    }

    fn clear(&mut self) {
        self.queue = Queue::default();
        self.behind = Queue::default();
    }
}

impl Queue {
    fn push(&mut self, frame: &SharedFrame, is_message: bool) {
        self.bytes += frame.wire_len();
        self.frames.push_back(Waiting { frame: frame.clone(), is_message });
    }

    fn pop(&mut self) -> Option<SharedFrame> {
        let Waiting { frame, .. } = self.frames.pop_front()?;
        self.bytes -= frame.wire_len();
        Some(frame)
    }

    /// Drops the oldest whole message; says whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.frames.iter().position(|waiting| waiting.is_message);
        let dropped = oldest.and_then(|oldest| self.frames.remove(oldest));
        self.bytes -= dropped.as_ref().map_or(0, |dropped| dropped.frame.wire_len());
        dropped.is_some()
    }
}

#[cfg(test)]
mod tests;
