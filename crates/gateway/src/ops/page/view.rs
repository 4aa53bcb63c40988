//! What of the page is asked for: a path and a query. Pure.

use std::cmp::Ordering;

use crate::ops::control::protocol::SessionInfo;
use crate::ops::page::watch::SessionRow;

/// Rows of the list at a time.
pub(crate) const PAGE_LEN: usize = 100;
/// The longest search, in characters; the rest is ignored.
const SEARCH_LEN_MAX: usize = 200;

/// A view of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// All of it.
    Overview,
    /// The sessions, or some of them.
    Sessions(SessionQuery),
    /// One of them.
    Session(u64),
}

/// Which sessions are listed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SessionQuery {
    /// Words that all stand in a session's row.
    pub(crate) search: String,
    /// By what they are sorted.
    pub(crate) sort: Column,
    /// The largest first.
    pub(crate) is_descending: bool,
    /// Which [`PAGE_LEN`] of them, from 0.
    pub(crate) page: usize,
}

/// What sessions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Column {
    /// Its number: the order in which they began.
    #[default]
    Id,
    /// The client's address.
    Client,
    /// Who the client is.
    Subject,
    /// Its route.
    Route,
    /// Its backend or service.
    To,
    /// `open` and so on.
    State,
    /// Since its request came.
    Age,
    /// Since a message last moved.
    Idle,
    /// Payload a second, both ways.
    Rate,
    /// Messages so far, both ways.
    Messages,
    /// Payload so far, both ways.
    Bytes,
    /// Since a peer has taken nothing of what waits for it.
    Stalled,
}

impl Column {
    /// All of them, in the order of the list.
    pub(crate) const ALL: [Self; 12] = [
        Self::Id,
        Self::Client,
        Self::Subject,
        Self::Route,
        Self::To,
        Self::State,
        Self::Age,
        Self::Idle,
        Self::Rate,
        Self::Messages,
        Self::Bytes,
        Self::Stalled,
    ];

    /// As a query names it.
    #[must_use]
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Client => "client",
            Self::Subject => "subject",
            Self::Route => "route",
            Self::To => "to",
            Self::State => "state",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Rate => "rate",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Stalled => "stalled",
        }
    }

    /// As the list names it.
    #[must_use]
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Id => "Session",
            Self::Client => "Client",
            Self::Subject => "Subject",
            Self::Route => "Route",
            Self::To => "To",
            Self::State => "State",
            Self::Age => "Age",
            Self::Idle => "Idle",
            Self::Rate => "Rate",
            Self::Messages => "Messages",
            Self::Bytes => "Bytes",
            Self::Stalled => "Stalled",
        }
    }

    /// It is a number: people want to see the largest first.
    #[must_use]
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Age | Self::Idle | Self::Rate | Self::Messages | Self::Bytes | Self::Stalled)
    }

    /// How two sessions stand to each other in this column.
    #[must_use]
    pub(crate) fn compare(self, a: &SessionRow, b: &SessionRow) -> Ordering {
        let (x, y) = (&a.info, &b.info);
        match self {
            Self::Id => x.id.cmp(&y.id),
            Self::Client => x.client.cmp(&y.client),
            Self::Subject => x.subject.cmp(&y.subject),
            Self::Route => x.route.cmp(&y.route),
            Self::To => x.to.cmp(&y.to),
            Self::State => x.state.cmp(&y.state),
            Self::Age => x.age_ms.cmp(&y.age_ms),
            Self::Idle => idle(x).cmp(&idle(y)),
            Self::Rate => a.rates.bytes().total_cmp(&b.rates.bytes()),
            Self::Messages => messages(x).cmp(&messages(y)),
            Self::Bytes => bytes(x).cmp(&bytes(y)),
            Self::Stalled => x.stalled_ms.cmp(&y.stalled_ms),
        }
    }
}

/// Since a message last moved.
pub(crate) fn idle(session: &SessionInfo) -> Option<u64> {
    session.traffic.as_ref().map(|traffic| traffic.idle_ms)
}

/// So far, both ways.
pub(crate) fn messages(session: &SessionInfo) -> Option<u64> {
    session.traffic.as_ref().map(|traffic| traffic.received_messages.saturating_add(traffic.sent_messages))
}

/// Payload so far, both ways.
pub(crate) fn bytes(session: &SessionInfo) -> Option<u64> {
    session.traffic.as_ref().map(|traffic| traffic.received_bytes.saturating_add(traffic.sent_bytes))
}

impl View {
    /// Reads `/`, `/sessions?q=chat&sort=-rate&page=2` or `/sessions/7`; `None`: there is no such view. What a query has
    /// beside that is ignored, and so is what it has twice.
    #[must_use]
    pub(crate) fn parse(path: &str, query: Option<&str>) -> Option<Self> {
        match path {
            "/" => Some(Self::Overview),
            "/sessions" => Some(Self::Sessions(SessionQuery::parse(query.unwrap_or_default()))),
            _ => {
                let id = path.strip_prefix("/sessions/")?;
                let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| id.parse().ok()).flatten().map(Self::Session)
            }
        }
    }

    /// The same from `path?query`.
    #[must_use]
    pub(crate) fn parse_target(target: &str) -> Option<Self> {
        match target.split_once('?') {
            Some((path, query)) => Self::parse(path, Some(query)),
            None => Self::parse(target, None),
        }
    }

    /// The path and the query that ask for it, in one spelling.
    #[must_use]
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Overview => "/".to_owned(),
            Self::Sessions(query) => query.target(),
            Self::Session(id) => format!("/sessions/{id}"),
        }
    }
}

impl SessionQuery {
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "q" => parsed.search = value.trim().chars().take(SEARCH_LEN_MAX).collect(),
                "sort" => {
                    let name = value.strip_prefix('-').unwrap_or(&value);
                    if let Some(column) = Column::ALL.into_iter().find(|column| column.key() == name) {
                        (parsed.sort, parsed.is_descending) = (column, value.starts_with('-'));
                    }
                }
                // A page that there is not is the last one.
                "page" => parsed.page = value.parse::<usize>().unwrap_or(1).saturating_sub(1),
                _ => {}
            }
        }
        parsed
    }

    /// The path and the query that ask for it.
    #[must_use]
    pub(crate) fn target(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            query.append_pair("q", &self.search);
        }
        if self.sort != Column::default() || self.is_descending {
            query.append_pair("sort", &self.sort_key());
        }
        if self.page > 0 {
            query.append_pair("page", &(self.page + 1).to_string());
        }
        let query = query.finish();
        if query.is_empty() { "/sessions".to_owned() } else { format!("/sessions?{query}") }
    }

    /// As a query names it, with the direction.
    #[must_use]
    pub(crate) fn sort_key(&self) -> String {
        format!("{}{}", if self.is_descending { "-" } else { "" }, self.sort.key())
    }

    /// The same list, sorted by `column`; if it is already, the other way round.
    #[must_use]
    pub(crate) fn sorted_by(&self, column: Column) -> Self {
        let is_descending = if self.sort == column { !self.is_descending } else { column.is_number() };
        Self { sort: column, is_descending, page: 0, search: self.search.clone() }
    }

    /// The rows that it asks for, how many there are on all pages, and the page that it is.
    #[must_use]
    pub(crate) fn select<'a>(&self, rows: &'a [SessionRow]) -> (Vec<&'a SessionRow>, usize, usize) {
        let words: Vec<String> = self.search.split_whitespace().map(str::to_lowercase).collect();
        let mut found: Vec<&SessionRow> = rows.iter().filter(|row| has_all(&row.info, &words)).collect();
        let count = found.len();
        let page = self.page.min(count.saturating_sub(1) / PAGE_LEN);
        let order = |a: &&SessionRow, b: &&SessionRow| {
            let order = self.sort.compare(a, b);
            let order = if self.is_descending { order.reverse() } else { order };
            order.then(a.info.id.cmp(&b.info.id))
        };
        let (start, end) = (page * PAGE_LEN, count.min((page + 1) * PAGE_LEN));
        // Only what is shown has to be in order.
        if end < count {
            found.select_nth_unstable_by(end, order);
            found.truncate(end);
        }
        found.sort_unstable_by(order);
        (found.split_off(start.min(found.len())), count, page)
    }
}

/// All words stand in it, whether in capitals or not.
fn has_all(session: &SessionInfo, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let SessionInfo { id, peer, client, route, to, protocol, subject, state, .. } = session;
    let text = format!(
        "{id}\n{peer}\n{client}\n{route}\n{to}\n{protocol}\n{}\n{state}",
        subject.as_deref().unwrap_or_default()
    )
    .to_lowercase();
    words.iter().all(|word| text.contains(&**word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::control::protocol::TrafficInfo;
    use crate::ops::page::watch::Rates;

    fn row(id: u64, route: &str, bytes: u64) -> SessionRow {
        let traffic = Some(TrafficInfo {
            idle_ms: id,
            received_messages: 1,
            received_bytes: bytes,
            sent_messages: 2,
            sent_bytes: 0,
        });
        let info = SessionInfo {
            id,
            client: format!("192.0.2.{id}"),
            route: route.to_owned(),
            state: "open".to_owned(),
            traffic,
            ..SessionInfo::default()
        };
        SessionRow { info, rates: Rates::default() }
    }

    fn shown(rows: &[SessionRow], target: &str) -> (Vec<u64>, usize, usize) {
        let Some(View::Sessions(query)) = View::parse_target(target) else { panic!("{target}") };
        let (rows, count, page) = query.select(rows);
        (rows.iter().map(|row| row.info.id).collect(), count, page)
    }

    #[test]
    fn views_by_path() {
        assert_eq!(View::parse_target("/"), Some(View::Overview));
        assert_eq!(View::parse_target("/?a=b"), Some(View::Overview));
        assert_eq!(View::parse_target("/sessions/7"), Some(View::Session(7)));
        for none in
            ["", "/x", "/sessions/", "/sessions/x", "/sessions/-1", "/sessions/+1", "/sessions/1/2", "//"]
        {
            assert_eq!(View::parse_target(none), None, "{none}");
        }
        let too_large = format!("/sessions/{}", "9".repeat(30));
        assert_eq!(View::parse_target(&too_large), None);
    }

    #[test]
    fn sessions_are_searched_sorted_and_paged() {
        let rows = [row(1, "/chat", 5), row(2, "/Chat/b", 9), row(3, "/feed", 7)];
        assert_eq!(shown(&rows, "/sessions"), (vec![1, 2, 3], 3, 0));
        assert_eq!(shown(&rows, "/sessions?q=chat"), (vec![1, 2], 2, 0));
        assert_eq!(shown(&rows, "/sessions?q=CHAT+192.0.2.2"), (vec![2], 1, 0));
        assert_eq!(shown(&rows, "/sessions?q=nothing"), (vec![], 0, 0));
        assert_eq!(shown(&rows, "/sessions?sort=-bytes"), (vec![2, 3, 1], 3, 0));
        assert_eq!(shown(&rows, "/sessions?sort=route&page=1"), (vec![2, 1, 3], 3, 0));
        assert_eq!(shown(&rows, "/sessions?sort=nonsense&page=x"), (vec![1, 2, 3], 3, 0));
        let many: Vec<_> = (0..250).map(|id| row(id, "/", id % 7)).collect();
        let (ids, count, page) = shown(&many, "/sessions?sort=-id&page=3");
        assert_eq!((ids.len(), ids[0], count, page), (50, 49, 250, 2));
        assert_eq!(shown(&many, "/sessions?sort=-id&page=9000000000").2, 2, "the last one");
        let all: Vec<u64> =
            (1..=3).flat_map(|n| shown(&many, &format!("/sessions?sort=bytes&page={n}")).0).collect();
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 250, "each once");
    }

    #[test]
    fn twenty_thousand_sessions_are_a_list_like_any_other() {
        let rows: Vec<_> = (0..20_000).map(|id| row(id, "/", id * 7919 % 20_000)).collect();
        let (ids, count, page) = shown(&rows, "/sessions?sort=-bytes&page=200");
        let bytes: Vec<u64> = ids.iter().map(|id| id * 7919 % 20_000).collect();
        assert_eq!((count, page, bytes), (20_000, 199, (0..100).rev().collect()));
    }

    #[test]
    fn a_column_that_is_chosen_again_turns_round() {
        let query = SessionQuery { page: 3, search: "a".into(), ..SessionQuery::default() };
        let once = query.sorted_by(Column::Rate);
        assert_eq!(once.target(), "/sessions?q=a&sort=-rate");
        assert_eq!(once.sorted_by(Column::Rate).target(), "/sessions?q=a&sort=rate");
        assert_eq!(query.sorted_by(Column::Route).target(), "/sessions?q=a&sort=route");
    }

    proptest! {
        #[test]
        fn any_query_has_one_spelling(text in ".*") {
            let target = format!("/sessions?{text}");
            if let Some(view) = View::parse_target(&target) {
                prop_assert_eq!(View::parse_target(&view.target()), Some(view));
            }
        }

        #[test]
        fn any_search_comes_back(search in ".{0,300}") {
            let query = SessionQuery { search, ..SessionQuery::default() };
            let Some(View::Sessions(parsed)) = View::parse_target(&query.target()) else { panic!() };
            let expect: String = query.search.trim().chars().take(200).collect();
            prop_assert_eq!(parsed.search, expect);
        }
    }
}
