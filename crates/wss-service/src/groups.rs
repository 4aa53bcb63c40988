//! Who is here: sessions by their ids, users, and groups. Pure.
//!
//! A session belongs to one user at most and to any number of groups. Groups and users exist while they have a session.

mod changes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::changes::Changes;
#[cfg(feature = "cluster")]
use crate::elsewhere::{Name, Publisher};
use crate::totals::Counter;

/// Members that can be told apart.
pub(crate) trait Member: Clone {
    fn id(&self) -> u64;

    /// Where it is in memory. A list is in this order: what is sent to many thousands then goes through memory in one
    /// direction.
    fn place(&self) -> usize;
}

/// The members of a group at one moment, shared by all who send to it until it changes.
pub(crate) type Members<T> = Arc<[T]>;

#[derive(Debug)]
pub(crate) struct Groups<T> {
    state: Mutex<State<T>>,
    pub(crate) counter: Counter,
    /// The way to other processes; none: there are none.
    #[cfg(feature = "cluster")]
    pub(crate) publisher: std::sync::OnceLock<Publisher>,
}

#[derive(Debug)]
struct State<T> {
    all: Set<T>,
    belongs: HashMap<u64, Belongs>,
    users: HashMap<Arc<str>, Set<T>>,
    groups: HashMap<Arc<str>, Set<T>>,
    changes: Changes,
}

/// What a session belongs to.
#[derive(Debug, Default)]
struct Belongs {
    user: Option<Arc<str>>,
    groups: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Set<T> {
    members: HashMap<u64, T>,
    /// The same as a list, since the last change.
    list: Option<Members<T>>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { members: HashMap::new(), list: None }
    }
}

impl<T: Member> Set<T> {
    fn insert(&mut self, member: T) {
        self.members.insert(member.id(), member);
        self.list = None;
    }

    fn remove(&mut self, id: u64) {
        self.members.remove(&id);
        self.list = None;
    }

    fn list(&mut self) -> Members<T> {
        let in_order = || {
            let mut members: Vec<_> = self.members.values().cloned().collect();
            members.sort_unstable_by_key(Member::place);
            members.into()
        };
        self.list.get_or_insert_with(in_order).clone()
    }
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        let (belongs, users, groups) = Default::default();
        Self {
            state: Mutex::new(State {
                all: Set::default(),
                belongs,
                users,
                groups,
                changes: Changes::default(),
            }),
            counter: Counter::default(),
            #[cfg(feature = "cluster")]
            publisher: std::sync::OnceLock::new(),
        }
    }
}

impl<T: Member> Groups<T> {
    /// Returns `false` if another session has its id.
    pub(crate) fn enter(&self, member: &T) -> bool {
        let mut state = self.lock();
        if state.all.members.contains_key(&member.id()) {
            return false;
        }
        state.all.insert(member.clone());
        state.changes.of_all();
        true
    }

    /// It leaves everything, and nothing is sent to it any more. What it belonged to is known until [`Self::forget`].
    pub(crate) fn depart(&self, id: u64) {
        let state = &mut *self.lock();
        state.all.remove(id);
        state.changes.of_all();
        let Some(Belongs { user, groups }) = state.belongs.get(&id) else { return };
        if let Some(user) = user {
            remove(&mut state.users, user, id);
            state.changes.of_user(user);
        }
        for group in groups {
            remove(&mut state.groups, group, id);
            state.changes.of_group(group);
        }
    }

    /// What it belonged to is known no longer. To be called after [`Self::depart`].
    pub(crate) fn forget(&self, id: u64) {
        self.lock().belongs.remove(&id);
    }

    /// The member is this user's from now on, or no user's.
    pub(crate) fn bind_user(&self, id: u64, user: Option<&str>) {
        let state = &mut *self.lock();
        let Some(member) = state.all.members.get(&id).cloned() else { return };
        let user = user.map(|user| key(&state.users, user));
        let belongs = state.belongs.entry(id).or_default();
        if let Some(before) = std::mem::replace(&mut belongs.user, user.clone()) {
            remove(&mut state.users, &before, id);
            state.changes.of_user(&before);
        }
        if let Some(user) = user {
            state.changes.of_user(&user);
            state.users.entry(user).or_default().insert(member);
        }
    }

    /// Returns whether it was not in the group before.
    pub(crate) fn join(&self, id: u64, group: &str) -> bool {
        let state = &mut *self.lock();
        let Some(member) = state.all.members.get(&id).cloned() else { return false };
        let group = key(&state.groups, group);
        let is_new = state.belongs.entry(id).or_default().groups.insert(group.clone());
        if is_new {
            state.changes.of_group(&group);
            state.groups.entry(group).or_default().insert(member);
        }
        is_new
    }

    /// Returns whether it was in the group.
    pub(crate) fn leave(&self, id: u64, group: &str) -> bool {
        let state = &mut *self.lock();
        if !state.all.members.contains_key(&id) {
            return false;
        }
        let Some(group) = state.belongs.get_mut(&id).and_then(|belongs| belongs.groups.take(group)) else {
            return false;
        };
        remove(&mut state.groups, &group, id);
        state.changes.of_group(&group);
        true
    }

    pub(crate) fn user_of(&self, id: u64) -> Option<Arc<str>> {
        self.lock().belongs.get(&id)?.user.clone()
    }

    pub(crate) fn groups_of(&self, id: u64) -> Vec<Arc<str>> {
        self.lock().belongs.get(&id).map_or_else(Vec::new, |belongs| belongs.groups.iter().cloned().collect())
    }

    pub(crate) fn get(&self, id: u64) -> Option<T> {
        self.lock().all.members.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Members<T> {
        self.lock().all.list()
    }

    pub(crate) fn of_user(&self, user: &str) -> Members<T> {
        self.lock().users.get_mut(user).map_or_else(|| Arc::new([]), Set::list)
    }

    pub(crate) fn of_group(&self, group: &str) -> Members<T> {
        self.lock().groups.get_mut(group).map_or_else(|| Arc::new([]), Set::list)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all.members.len()
    }

    pub(crate) fn count_of_user(&self, user: &str) -> usize {
        self.lock().users.get(user).map_or(0, |set| set.members.len())
    }

    pub(crate) fn count_of_group(&self, group: &str) -> usize {
        self.lock().groups.get(group).map_or(0, |set| set.members.len())
    }

    /// How many users and groups there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.users.len(), state.groups.len())
    }

    pub(crate) fn user_names(&self) -> Vec<Arc<str>> {
        self.lock().users.keys().cloned().collect()
    }

    pub(crate) fn group_names(&self) -> Vec<Arc<str>> {
        self.lock().groups.keys().cloned().collect()
    }

    /// From now on changes of names that `is_shared` are noted, and `wake` is called at the first of those that were not
    /// taken yet.
    #[cfg(feature = "cluster")]
    pub(crate) fn watch(&self, is_shared: fn(&Name) -> bool, wake: impl Fn() + Send + 'static) {
        self.lock().changes = Changes::watched(is_shared, wake);
    }

    /// Names whose number of sessions has changed, each once.
    #[cfg(feature = "cluster")]
    pub(crate) fn take_changes(&self) -> HashSet<Name> {
        self.lock().changes.take()
    }

    /// All names that have a session, and [`Name::All`].
    #[cfg(feature = "cluster")]
    pub(crate) fn names(&self) -> Vec<Name> {
        let state = self.lock();
        let users = state.users.keys().cloned().map(Name::User);
        let groups = state.groups.keys().cloned().map(Name::Group);
        users.chain(groups).chain([Name::All]).collect()
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn count_of(&self, name: &Name) -> usize {
        match name {
            Name::All => self.count(),
            Name::User(user) => self.count_of_user(user),
            Name::Group(group) => self.count_of_group(group),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name as it is held already, or a new one.
fn key<T>(sets: &HashMap<Arc<str>, Set<T>>, name: &str) -> Arc<str> {
    sets.get_key_value(name).map_or_else(|| name.into(), |(key, _)| key.clone())
}

fn remove<T: Member>(sets: &mut HashMap<Arc<str>, Set<T>>, name: &str, id: u64) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(id);
        if set.members.is_empty() {
            sets.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    impl Member for u64 {
        fn id(&self) -> u64 {
            *self
        }

        fn place(&self) -> usize {
            usize::try_from(*self).unwrap()
        }
    }

    fn with(ids: &[u64]) -> Groups<u64> {
        let groups = Groups::default();
        for id in ids {
            assert!(groups.enter(id));
        }
        groups
    }

    fn sorted(members: &Members<u64>) -> Vec<u64> {
        let mut ids = members.to_vec();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_id_is_there_once() {
        let groups = with(&[1]);
        assert!(!groups.enter(&1));
        assert_eq!((groups.get(1), groups.get(2)), (Some(1), None));
    }

    #[test]
    fn a_session_has_one_user_and_a_user_many_sessions() {
        let groups = with(&[1, 2]);
        groups.bind_user(1, Some("ann"));
        groups.bind_user(2, Some("ann"));
        assert_eq!((sorted(&groups.of_user("ann")), groups.count_of_user("ann")), (vec![1, 2], 2));
        groups.bind_user(1, Some("bob"));
        assert_eq!((sorted(&groups.of_user("ann")), sorted(&groups.of_user("bob"))), (vec![2], vec![1]));
        groups.bind_user(2, None);
        assert_eq!((groups.counts().0, groups.user_of(2)), (1, None));
    }

    #[test]
    fn groups_exist_while_they_have_a_session() {
        let groups = with(&[1, 2]);
        assert!(groups.join(1, "a") && groups.join(2, "a") && !groups.join(1, "a"));
        assert_eq!(sorted(&groups.of_group("a")), [1, 2]);
        assert!(groups.leave(1, "a") && !groups.leave(1, "a") && !groups.leave(1, "b"));
        assert_eq!((groups.count_of_group("a"), groups.counts().1), (1, 1));
    }

    #[test]
    fn who_has_departed_is_sent_nothing_and_still_knows_where_it_was() {
        let groups = with(&[1, 2]);
        groups.bind_user(2, Some("ann"));
        groups.join(2, "a");
        groups.depart(2);
        assert_eq!((groups.count(), groups.counts(), groups.get(2)), (1, (0, 0), None));
        assert_eq!((groups.user_of(2), groups.groups_of(2)), (Some("ann".into()), vec!["a".into()]));
        assert!(!groups.join(2, "b") && !groups.leave(2, "a"));
        groups.bind_user(2, Some("bob"));
        assert_eq!(groups.counts(), (0, 0));
        groups.forget(2);
        assert_eq!((groups.user_of(2), groups.groups_of(2)), (None, vec![]));
    }

    #[test]
    fn a_group_that_does_not_change_is_listed_once() {
        let groups = with(&[1, 2]);
        groups.join(1, "a");
        let first = groups.of_group("a");
        assert!(Arc::ptr_eq(&first, &groups.of_group("a")));
        groups.join(2, "a");
        assert_eq!((first.len(), groups.of_group("a").len()), (1, 2));
    }

    #[test]
    fn what_has_changed_is_noted_once_and_only_for_a_watcher() {
        let groups = with(&[1]);
        assert_eq!(groups.take_changes(), HashSet::new());
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        groups.watch(
            |name| *name != Name::Group("own".into()),
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            },
        );
        groups.enter(&2);
        groups.join(2, "own");
        groups.join(2, "tea");
        groups.bind_user(2, Some("ann"));
        groups.bind_user(2, Some("bob"));
        let user = |name: &str| Name::User(name.into());
        let tea = Name::Group("tea".into());
        let changed = HashSet::from([Name::All, tea.clone(), user("ann"), user("bob")]);
        assert_eq!((groups.take_changes(), woken.load(Ordering::Relaxed)), (changed, 1));
        groups.depart(2);
        assert_eq!(groups.take_changes(), HashSet::from([Name::All, tea, user("bob")]));
        assert_eq!((woken.load(Ordering::Relaxed), groups.take_changes().len()), (2, 0));
    }

    #[test]
    fn names_have_the_numbers_of_their_sessions() {
        let groups = with(&[1, 2]);
        groups.join(1, "tea");
        groups.join(2, "tea");
        groups.bind_user(1, Some("ann"));
        groups.leave(2, "tea");
        let count = |name| (groups.count_of(&name), format!("{name:?}"));
        let mut counts: Vec<_> = groups.names().into_iter().map(count).collect();
        counts.sort();
        let expected = [(1, "Group(\"tea\")"), (1, "User(\"ann\")"), (2, "All")];
        assert_eq!(counts, expected.map(|(count, name)| (count, name.to_owned())));
    }

    proptest! {
        /// Against plain sets.
        #[test]
        fn it_is_as_sets_are(steps: Vec<(u8, u64, u8)>) {
            let groups = Groups::default();
            let mut here = HashSet::new();
            let mut pairs = HashSet::new();
            for (step, id, name) in steps {
                let (id, name) = (id % 5, format!("{}", name % 3));
                match step % 4 {
                    0 => prop_assert_eq!(groups.enter(&id), here.insert(id)),
                    1 => {
                        let joins = here.contains(&id) && pairs.insert((id, name.clone()));
                        prop_assert_eq!(groups.join(id, &name), joins);
                    }
                    2 => {
                        let leaves = pairs.remove(&(id, name.clone()));
                        prop_assert_eq!(groups.leave(id, &name), leaves);
                    }
                    _ => {
                        groups.depart(id);
                        groups.forget(id);
                        here.remove(&id);
                        pairs.retain(|(other, _)| *other != id);
                    }
                }
                for name in ["0", "1", "2"] {
                    let mut members: Vec<u64> =
                        pairs.iter().filter(|pair| pair.1 == name).map(|pair| pair.0).collect();
                    members.sort_unstable();
                    prop_assert_eq!(sorted(&groups.of_group(name)), members);
                }
            }
            prop_assert_eq!(groups.count(), here.len());
        }
    }
}
