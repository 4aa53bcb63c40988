//! Users, groups, and all.

use super::*;

/// A service whose sessions say in their paths to whom they belong: `/user/group`.
fn grouped() -> Running {
    let service = bind().on_open(async |session: Session| {
        let mut path = session.path().split('/').skip(1);
        if let (Some(user), Some(group)) = (path.next(), path.next()) {
            session.bind_user(user);
            session.join(group);
        }
        Ok(())
    });
    start(service)
}

#[tokio::test]
async fn a_message_goes_to_those_who_are_meant() {
    let running = grouped();
    let hub = &running.hub;
    let mut ann = [running.open("/ann/tea").await, running.open("/ann/coffee").await];
    let mut bob = running.open("/bob/tea").await;
    until(async || hub.count(To::All) == 3).await;
    let sent = |queued| wss_service::Delivery { queued, ..Default::default() };
    assert_eq!(hub.send_to(To::User("ann"), "to ann").await, sent(2));
    for client in &mut ann {
        client.expect_text("to ann").await;
    }
    assert_eq!(hub.send_to(To::Group("tea"), "tea").await, sent(2));
    ann[0].expect_text("tea").await;
    bob.expect_text("tea").await;
    assert_eq!(hub.try_send_to(To::All, "all"), sent(3));
    for client in ann.iter_mut().chain([&mut bob]) {
        client.expect_text("all").await;
    }
    let id = hub.sessions(To::User("bob"))[0].id();
    assert_eq!(hub.send_to(To::Session(id), "to one").await, sent(1));
    bob.expect_text("to one").await;
    let bobs = hub.session(id).unwrap();
    assert_eq!(bobs.send_to_others(To::Group("tea"), "from bob").await, sent(1));
    ann[0].expect_text("from bob").await;
    assert_eq!(bobs.send_to_others(To::User("bob"), "to no session").await, sent(0));
    assert_eq!(hub.send_to(To::All, "bob hears nothing in between").await, sent(3));
    bob.expect_text("bob hears nothing in between").await;
    for unknown in [To::User("eve"), To::Group("milk"), To::Session(id ^ 1)] {
        assert_eq!(hub.send_to(unknown, "to no session").await, sent(0));
    }
}

/// A broadcast is no reason to take a client that reads for a slow one.
#[tokio::test]
async fn many_messages_at_one_go_reach_those_who_read() {
    let slow_client = SlowClient::Close(CloseCode::TRY_AGAIN_LATER);
    let settings = Settings { slow_client, outbox_max: 10_000, ..Settings::default() };
    let running = start(bind().settings(settings));
    let mut clients = [running.open("/").await, running.open("/").await];
    until(async || running.hub.count(To::All) == 2).await;
    for _ in 0..50 {
        assert_eq!(running.hub.send_to(To::All, vec![0; 1_000]).await.queued, 2);
    }
    for client in &mut clients {
        for _ in 0..50 {
            assert_eq!(client.receive().await.unwrap().payload.len(), 1_000);
        }
    }
}

#[tokio::test]
async fn who_is_here_is_known() {
    let running = grouped();
    let hub = running.hub.clone();
    let mut first = running.open("/ann/tea").await;
    let second = running.open("/ann/tea").await;
    until(async || hub.count(To::All) == 2).await;
    assert_eq!((hub.count(To::User("ann")), hub.count(To::Group("tea"))), (2, 2));
    assert_eq!((hub.users_count(), hub.groups_count()), (1, 1));
    assert_eq!((hub.user_names(), hub.group_names()), (vec!["ann".into()], vec!["tea".into()]));
    drop(second);
    until(async || hub.count(To::Group("tea")) == 1).await;
    assert!(hub.is_online("ann") && !hub.is_online("bob"));
    first.close(1000).await;
    until(async || !hub.is_online("ann")).await;
    assert_eq!((hub.count(To::All), hub.users_count(), hub.groups_count()), (0, 0, 0));
}

#[tokio::test]
async fn a_session_that_ends_tells_its_group_and_not_itself() {
    let (note, mut noted) = mpsc::unbounded_channel();
    let service = bind()
        .on_open(async |session: Session| {
            session.bind_user(session.path());
            session.join("all");
            Ok(())
        })
        .on_close(move |session: Session, _| {
            let note = note.clone();
            async move {
                let user = session.user();
                let delivery = session.hub().send_to(To::Group("all"), "gone").await;
                let _ = note.send((user.as_deref().map(ToOwned::to_owned), session.groups().len(), delivery));
            }
        });
    let running = start(service);
    let (mut ann, mut bob) = (running.open("/ann").await, running.open("/bob").await);
    until(async || running.hub.count(To::Group("all")) == 2).await;
    ann.close(1000).await;
    bob.expect_text("gone").await;
    let (user, groups, delivery) = soon(noted.recv()).await.unwrap();
    assert_eq!((user.as_deref(), groups), (Some("/ann"), 1), "it still knows where it was");
    assert_eq!((delivery.queued, delivery.missed), (1, 0));
}

/// One client that reads nothing holds up those that wait for it, and no others.
#[tokio::test]
async fn the_slowest_is_waited_for_last() {
    let settings = Settings { outbox_max: 10_000, ..Settings::default() };
    let running = start(bind().settings(settings));
    let mut quick = running.open("/").await;
    let mut slow = running.open("/").await;
    let hub = running.hub.clone();
    until(async || hub.count(To::All) == 2).await;
    let reading = tokio::spawn(async move {
        let mut count = 0;
        while quick.receive().await.is_some_and(|frame| frame.payload.len() == 9_000) {
            count += 1;
        }
        count
    });
    // Until the slow one's socket, endpoint and outbox are full.
    let mut sent = 0;
    while hub.try_send_to(To::All, vec![0; 9_000]).missed == 0 {
        sent += 1;
        tokio::task::yield_now().await;
    }
    let waiting = {
        let hub = hub.clone();
        tokio::spawn(async move { hub.send_to(To::All, "last").await })
    };
    let quick_has = soon(reading).await.unwrap();
    assert!(quick_has >= sent, "{quick_has} of {sent}");
    while slow.receive().await.unwrap().payload != b"last" {}
    let delivery = soon(waiting).await.unwrap();
    assert_eq!((delivery.queued, delivery.missed), (2, 0));
}
