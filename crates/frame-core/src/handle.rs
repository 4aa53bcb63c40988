//! The handle by which a live session is ended or frozen from outside, and asked what it has carried. What it carries goes
//! by it to a [`Ledger`].
//!
//! Each order and each question wakes the session. A session without either reads one atomic word whenever it is
//! polled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use net_io::count::Sizes;
use tokio::sync::oneshot;

use crate::ledger::{Account, Ledger};
use crate::outcome::{Outcome, Snapshot, Traffic};

/// How a session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndMode {
    /// Finish the messages in flight, then close.
    AfterMessages {
        /// When this time is over, the session ends as with [`EndMode::Now`]: a message that is kept open must not
        /// keep the session alive. Whole milliseconds, 49 days at most.
        within: Duration,
    },
    /// Close between two frames if the bytes sent so far end there, otherwise cut the connection.
    Now,
}

/// An order to end: the close code both peers are told, and the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The close code, for instance 1001.
    pub code: u16,
    /// How soon.
    pub mode: EndMode,
}

/// When a session may be frozen, that is, taken apart so that another process can go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeMode {
    /// Not before everything that it has to write is written: it is soon, unless a peer takes nothing.
    BetweenWrites,
    /// At once, with what is unwritten.
    AsItIs,
}

/// What a client has sent more of than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// Messages and Pings.
    Messages,
    /// Bytes of frames.
    Bytes,
}

impl RateLimit {
    /// As the configuration calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
        }
    }
}

/// Shared by a session and all that may end it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SessionHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The code of the order in force (0: none), above it the bits below, and in the upper half the
    /// milliseconds that it leaves for messages in flight.
    word: AtomicU64,
    /// Of the session's task.
    waker: Mutex<Option<Waker>>,
    /// What was asked last.
    question: Mutex<Option<Box<Question>>>,
    /// Since when a peer has taken nothing of what waits for it, in milliseconds since [`EPOCH`] and one;
    /// 0: nothing waits.
    stalled: AtomicU64,
    /// `None`: what the session carries is added up nowhere.
    account: Option<Account>,
}

/// A question that has no answer yet, and those before it.
#[derive(Debug)]
struct Question {
    reply: oneshot::Sender<Snapshot>,
    earlier: Option<Box<Question>>,
}

impl Question {
    /// Takes out those whose askers have gone.
    fn prune(mut first: Option<Box<Self>>) -> Option<Box<Self>> {
        let mut kept = None;
        while let Some(mut question) = first {
            first = question.earlier.take();
            if !question.reply.is_closed() {
                question.earlier = kept.take();
                kept = Some(question);
            }
        }
        kept
    }
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The waker that a session has registered with its [`SessionHandle`].
#[derive(Debug, Default)]
pub struct RegisteredWaker(Option<Waker>);

impl RegisteredWaker {
    /// The task of `cx` is the one that is woken.
    fn is_task_of(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }
}

/// The order's mode is [`EndMode::Now`].
const NOW: u64 = 1 << 16;
/// A snapshot was asked for.
const SNAPSHOT_REQUESTED: u64 = 1 << 17;
/// The session is to be polled once more.
const POLL_REQUESTED: u64 = 1 << 18;
/// The session is to be frozen between two writes.
const FREEZE_REQUESTED: u64 = 1 << 19;
/// The session is to be frozen as it is.
const FREEZE_AS_IT_IS: u64 = 1 << 20;
/// The session is to leave its server for another.
const REDIAL_REQUESTED: u64 = 1 << 21;
/// Another process has the session.
const DEPARTED: u64 = 1 << 22;
/// The session's client is not read for a while, by its rates.
const DELAYED: u64 = 1 << 23;
/// The session ends since its client has sent too many messages.
const TOO_MANY_MESSAGES: u64 = 1 << 24;
/// The session ends since its client has sent too many bytes.
const TOO_MANY_BYTES: u64 = 1 << 25;
/// The session is to be frozen as it is, and goes on at once.
const INTERRUPTED: u64 = 1 << 26;
/// The session is to tell its ledger what it has carried.
const ACCOUNT_REQUESTED: u64 = 1 << 27;
/// What the session says of itself.
const NOTES: u64 = DELAYED | TOO_MANY_MESSAGES | TOO_MANY_BYTES;
/// All that is no order.
const REQUESTS: u64 = SNAPSHOT_REQUESTED
    | POLL_REQUESTED
    | FREEZE_REQUESTED
    | FREEZE_AS_IT_IS
    | REDIAL_REQUESTED
    | INTERRUPTED
    | ACCOUNT_REQUESTED
    | NOTES;
/// Where the milliseconds begin.
const WITHIN_SHIFT: u32 = 32;

impl SessionHandle {
    /// The handle of a new session: there is no order yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle of a new session that tells `ledger` what it carries.
    #[must_use]
    pub fn with_ledger(ledger: Arc<dyn Ledger>) -> Self {
        Self(Arc::new(Shared { account: Some(Account::new(ledger)), ..Shared::default() }))
    }

    /// Asks the session to end. Of several orders the first code counts, so that both peers are told the
    /// same, and the earliest end. Returns `false` if another process has the session: it has to be asked there.
    pub fn end(&self, order: Order) -> bool {
        let mode = match order.mode {
            EndMode::AfterMessages { within } => {
                u64::from(u32::try_from(within.as_millis()).unwrap_or(u32::MAX)) << WITHIN_SHIFT
            }
            EndMode::Now => NOW,
        };
        let taken = self.0.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            let (code, asked) = (old & 0xFFFF, old & REQUESTS);
            match code {
                _ if old & DEPARTED != 0 => None,
                0 => Some(u64::from(order.code) | mode | asked),
                _ if old & NOW != 0 => None,
                _ if mode == NOW || mode < old >> WITHIN_SHIFT << WITHIN_SHIFT => Some(code | mode | asked),
                _ => None,
            }
        });
        self.wake();
        taken.map_or_else(|word| word & DEPARTED == 0, |_| true)
    }

    /// Another process has the session, which was frozen. Returns the order in force, which may have come since then;
    /// none comes any more.
    #[must_use]
    pub fn depart(&self) -> Option<Order> {
        order_in(self.0.word.fetch_or(DEPARTED, Ordering::AcqRel))
    }

    /// Asks the session for a [`Snapshot`]. Several may ask at the same time. No answer comes from a session that is over.
    #[must_use]
    pub fn request_snapshot(&self) -> oneshot::Receiver<Snapshot> {
        let (reply, answer) = oneshot::channel();
        let mut question = lock(&self.0.question);
        let earlier = Question::prune(question.take());
        *question = Some(Box::new(Question { reply, earlier }));
        drop(question);
        self.0.word.fetch_or(SNAPSHOT_REQUESTED, Ordering::AcqRel);
        self.wake();
        answer
    }

    /// Asks a session to freeze: its future then ends with [`Frozen`](crate::relay::Ending::Frozen), or, of an endpoint,
    /// [`recv`](crate::endpoint::Endpoint::recv) ends. A session whose connections are being shut down doesn't freeze, nor
    /// does an endpoint as long as it has hundreds of kilobytes of messages.
    pub fn freeze(&self, mode: FreezeMode) {
        let mode = match mode {
            FreezeMode::BetweenWrites => FREEZE_REQUESTED,
            FreezeMode::AsItIs => FREEZE_REQUESTED | FREEZE_AS_IT_IS,
        };
        self.0.word.fetch_or(mode, Ordering::AcqRel);
        self.wake();
    }

    /// The session need not freeze any more. It may have done so already.
    pub fn cancel_freeze(&self) {
        self.0.word.fetch_and(!(FREEZE_REQUESTED | FREEZE_AS_IT_IS), Ordering::AcqRel);
    }

    /// Has the session freeze at once as it is, whether it is to leave or not, so that who runs it can go on with it in
    /// another way: with a [tap](mod@crate::tap), or without one.
    pub fn interrupt(&self) {
        self.0.word.fetch_or(INTERRUPTED, Ordering::AcqRel);
        self.wake();
    }

    /// What [`Self::freeze`] or [`Self::interrupt`] asked for.
    #[must_use]
    pub(crate) fn freeze_mode(&self) -> Option<FreezeMode> {
        let word = self.0.word.load(Ordering::Acquire);
        if word & (INTERRUPTED | FREEZE_REQUESTED) == 0 {
            None
        } else if word & (INTERRUPTED | FREEZE_AS_IT_IS) == 0 {
            Some(FreezeMode::BetweenWrites)
        } else {
            Some(FreezeMode::AsItIs)
        }
    }

    /// The session has frozen, and this is how it was. What was asked is answered, and its ledger told.
    pub(crate) fn on_frozen(&self, snapshot: Snapshot) {
        self.0.word.fetch_and(!(FREEZE_REQUESTED | FREEZE_AS_IT_IS | INTERRUPTED), Ordering::AcqRel);
        self.answer(snapshot);
    }

    /// The session goes on, which had carried this when it froze. Its ledger, or that of another process, was told then.
    pub(crate) fn on_thawed(&self, from_client: &Traffic, from_backend: &Traffic) {
        if let Some(account) = &self.0.account {
            account.begin_at(from_client, from_backend);
        }
    }

    /// Where its messages from the client and from the backend are counted by size, if they are.
    pub(crate) fn sizes(&self) -> [Option<&Arc<Sizes>>; 2] {
        self.0.account.as_ref().map_or([None, None], |account| account.sizes().map(Some))
    }

    /// A ping of the gateway's took this long to its answer, in microseconds.
    pub(crate) fn on_ping_answered(&self, took_us: u32) {
        if let Some(account) = &self.0.account {
            account.ping(took_us);
        }
    }

    /// The session has ended so: its ledger is told the last that it has carried. To be called by its task, once.
    pub fn on_end(&self, outcome: &Outcome) {
        if let Some(account) = &self.0.account {
            account.tell(&outcome.from_client, &outcome.from_backend);
        }
    }

    /// `waits`: bytes of the session wait in memory for one of its peers; `took`: it has just taken some of them.
    pub fn on_stall(&self, waits: bool, took: bool) {
        let since = self.0.stalled.load(Ordering::Relaxed);
        if waits && (took || since == 0) {
            let now = u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.0.stalled.store(now + 1, Ordering::Relaxed);
        } else if !waits && since != 0 {
            self.0.stalled.store(0, Ordering::Relaxed);
        }
    }

    /// Since when a peer has taken nothing of what waits for it; `None`: nothing waits. Only for comparison with
    /// other sessions.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Duration> {
        self.0.stalled.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }

    /// How long a peer has taken nothing of what waits for it; `None`: nothing waits.
    #[must_use]
    pub fn stalled_for(&self) -> Option<Duration> {
        self.stalled_since().map(|since| EPOCH.elapsed().saturating_sub(since))
    }

    /// Has the session polled, in case a wake-up was lost. [`Self::take_poll_request`] says so to the session. As it is
    /// awake then, it tells its ledger what it has carried.
    pub fn request_poll(&self) {
        let account = if self.0.account.is_some() { ACCOUNT_REQUESTED } else { 0 };
        self.0.word.fetch_or(POLL_REQUESTED | account, Ordering::AcqRel);
        self.wake();
    }

    /// Whether the session was woken by [`Self::request_poll`]; once.
    #[must_use]
    pub fn take_poll_request(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & POLL_REQUESTED != 0
            && self.0.word.fetch_and(!POLL_REQUESTED, Ordering::AcqRel) & POLL_REQUESTED != 0
    }

    /// Asks a session whose server can be replaced to leave it for another one. No other session hears of it.
    pub fn redial(&self) {
        self.0.word.fetch_or(REDIAL_REQUESTED, Ordering::AcqRel);
        self.wake();
    }

    /// Whether [`Self::redial`] was called; once.
    pub(crate) fn take_redial(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & REDIAL_REQUESTED != 0
            && self.0.word.fetch_and(!REDIAL_REQUESTED, Ordering::AcqRel) & REDIAL_REQUESTED != 0
    }

    /// The client is not read for a while since it has used its rates, or it is read again.
    pub(crate) fn set_delayed(&self, is_delayed: bool) {
        if is_delayed {
            self.0.word.fetch_or(DELAYED, Ordering::AcqRel);
        } else {
            self.0.word.fetch_and(!DELAYED, Ordering::AcqRel);
        }
    }

    /// The client is not read at the moment since it has used its rates.
    #[must_use]
    pub fn is_delayed(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & DELAYED != 0
    }

    /// The session ends since its client has sent more than this allows.
    pub(crate) fn exceed(&self, limit: RateLimit) {
        let note = match limit {
            RateLimit::Messages => TOO_MANY_MESSAGES,
            RateLimit::Bytes => TOO_MANY_BYTES,
        };
        self.0.word.fetch_or(note, Ordering::AcqRel);
    }

    /// What the client has sent more of than it may, if the session ends for that.
    #[must_use]
    pub fn exceeded(&self) -> Option<RateLimit> {
        let word = self.0.word.load(Ordering::Acquire);
        match (word & TOO_MANY_MESSAGES != 0, word & TOO_MANY_BYTES != 0) {
            (true, _) => Some(RateLimit::Messages),
            (false, true) => Some(RateLimit::Bytes),
            (false, false) => None,
        }
    }

    fn wake(&self) {
        let waker = lock(&self.0.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Answers [`Self::request_snapshot`] and tells the session's ledger, if one of these was asked for. To be called after
    /// [`Self::poll`].
    pub(crate) fn answer_snapshot(&self, tell: impl FnOnce() -> Snapshot) {
        if self.0.word.load(Ordering::Acquire) & (SNAPSHOT_REQUESTED | ACCOUNT_REQUESTED) != 0 {
            self.answer(tell());
        }
    }

    fn answer(&self, snapshot: Snapshot) {
        let asked = self.0.word.fetch_and(!(SNAPSHOT_REQUESTED | ACCOUNT_REQUESTED), Ordering::AcqRel);
        if let Some(account) = &self.0.account {
            account.tell(&snapshot.from_client, &snapshot.from_backend);
        }
        if asked & SNAPSHOT_REQUESTED == 0 {
            return;
        }
        let asked = lock(&self.0.question).take();
        let Some(mut question) = asked else { return };
        loop {
            let Question { reply, earlier } = *question;
            let _ = reply.send(snapshot);
            match earlier {
                Some(earlier) => question = earlier,
                None => return,
            }
        }
    }

    /// The order in force. The task of `cx` is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>, registered: &mut RegisteredWaker) -> Option<Order> {
        if !registered.is_task_of(cx) {
            registered.0 = Some(cx.waker().clone());
            // Before the word is read: a later change of it finds this waker.
            lock(&self.0.waker).clone_from(&registered.0);
        }
        self.order()
    }

    /// There is no order and no question, and the task of `cx` is woken when there is.
    #[must_use]
    pub(crate) fn is_silent(&self, cx: &Context<'_>, registered: &RegisteredWaker) -> bool {
        registered.is_task_of(cx) && self.0.word.load(Ordering::Acquire) & !NOTES == 0
    }

    /// The order in force.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        order_in(self.0.word.load(Ordering::Acquire))
    }
}

fn order_in(word: u64) -> Option<Order> {
    let code = u16::try_from(word & 0xFFFF).ok().filter(|&code| code != 0)?;
    let within = Duration::from_millis(word >> WITHIN_SHIFT);
    let mode = if word & NOW == 0 { EndMode::AfterMessages { within } } else { EndMode::Now };
    Some(Order { code, mode })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn orders_only_get_harsher() {
        let handle = SessionHandle::new();
        assert_eq!(handle.order(), None);
        let within = |seconds| EndMode::AfterMessages { within: Duration::from_secs(seconds) };
        let gentle = Order { code: 1001, mode: within(9) };
        handle.end(Order { code: 1001, mode: within(20) });
        for mode in [within(9), within(9), within(10)] {
            handle.end(Order { code: 1012, mode });
            assert_eq!(handle.order(), Some(gentle), "the first code, the earliest end");
        }
        let question = handle.request_snapshot();
        handle.end(Order { mode: within(8), ..gentle });
        assert_eq!(handle.order(), Some(Order { mode: within(8), ..gentle }));
        handle.answer_snapshot(Snapshot::default);
        drop(question);
        handle.end(Order { code: 1012, mode: EndMode::Now });
        assert_eq!(handle.order(), Some(Order { code: 1001, mode: EndMode::Now }));
        handle.end(gentle);
        assert_eq!(handle.order(), Some(Order { code: 1001, mode: EndMode::Now }));
    }

    #[test]
    fn a_session_that_has_departed_takes_its_order_along_and_no_other() {
        let order = Order { code: 1001, mode: EndMode::Now };
        let handle = SessionHandle::new();
        assert!(handle.end(order));
        assert_eq!(handle.depart(), Some(order));
        assert!(!handle.end(order));
        let handle = SessionHandle::new();
        assert_eq!(handle.depart(), None);
        assert!(!handle.end(order));
        assert_eq!(handle.order(), None);
    }

    #[test]
    fn a_peer_stalls_from_the_last_byte_that_it_took() {
        let handle = SessionHandle::new();
        assert_eq!(handle.stalled_since(), None);
        handle.on_stall(true, false);
        let first = handle.stalled_since().unwrap();
        while EPOCH.elapsed() < first + Duration::from_millis(2) {}
        handle.on_stall(true, false);
        assert_eq!(handle.stalled_since(), Some(first));
        handle.on_stall(true, true);
        assert!(handle.stalled_since().unwrap() > first);
        handle.on_stall(false, true);
        assert_eq!(handle.stalled_since(), None);
    }

    #[test]
    fn the_task_that_looked_last_is_woken_each_time() {
        let (handle, mut registered) = (SessionHandle::new(), RegisteredWaker::default());
        let tasks: [Arc<Counts>; 2] = Default::default();
        let woken = || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        let [first, second] = tasks.each_ref().map(|task| Waker::from(task.clone()));
        let (first, second) = (Context::from_waker(&first), Context::from_waker(&second));
        assert_eq!(handle.poll(&first, &mut registered), None);
        assert!(handle.is_silent(&first, &registered) && !handle.is_silent(&second, &registered));
        drop(handle.request_snapshot());
        assert_eq!(woken(), [1, 0]);
        assert!(!handle.is_silent(&first, &registered));
        handle.answer_snapshot(Snapshot::default);
        assert!(handle.is_silent(&first, &registered));
        assert_eq!(handle.poll(&second, &mut registered), None);
        assert!(!handle.is_silent(&first, &registered));
        let order = Order { code: 1001, mode: EndMode::AfterMessages { within: Duration::MAX } };
        handle.end(order);
        handle.end(Order { mode: EndMode::Now, ..order });
        assert_eq!(woken(), [1, 2]);
        assert!(handle.poll(&second, &mut registered).is_some() && !handle.is_silent(&second, &registered));
    }

    #[test]
    fn a_look_wakes_the_session_and_is_taken_once() {
        let (handle, mut registered, task) =
            (SessionHandle::new(), RegisteredWaker::default(), Arc::<Counts>::default());
        let waker = Waker::from(task.clone());
        let context = Context::from_waker(&waker);
        assert_eq!(handle.poll(&context, &mut registered), None);
        assert!(!handle.take_poll_request());
        handle.request_poll();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert_eq!((handle.is_silent(&context, &registered), handle.order()), (false, None));
        let mut answer = handle.request_snapshot();
        let order = Order { code: 1001, mode: EndMode::AfterMessages { within: Duration::from_secs(1) } };
        handle.end(order);
        assert!(handle.take_poll_request() && !handle.take_poll_request());
        handle.answer_snapshot(Snapshot::default);
        assert_eq!((answer.try_recv(), handle.order()), (Ok(Snapshot::default()), Some(order)));
    }

    #[test]
    fn a_question_is_answered_once_and_touches_no_order() {
        let handle = SessionHandle::new();
        handle.answer_snapshot(|| panic!("it was not asked for"));
        let mut answer = handle.request_snapshot();
        let mut other = handle.request_snapshot();
        drop(handle.request_snapshot());
        assert_eq!(handle.order(), None);
        let order = Order { code: 1001, mode: EndMode::Now };
        handle.end(order);
        assert_eq!(handle.order(), Some(order));
        let snapshot = Snapshot { idle: Duration::from_secs(7), ..Snapshot::default() };
        handle.answer_snapshot(|| snapshot);
        assert_eq!((answer.try_recv(), other.try_recv()), (Ok(snapshot), Ok(snapshot)));
        assert_eq!(handle.order(), Some(order));
        handle.answer_snapshot(|| panic!("it is answered"));
        let mut unanswered = handle.request_snapshot();
        drop(handle);
        assert!(unanswered.try_recv().is_err());
    }
}
