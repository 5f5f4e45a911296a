//! Sessions and subscriptions.

use crate::Gateway;
use crate::wire::{publish_v311, subscribe_v311, unsubscribe_v311};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_session_is_present_after_a_crash_with_its_subscriptions_and_a_clean_one_is_gone() {
    let mut gateway = Gateway::start();
    let mut kept = gateway.resume_v311("kept", false).await;
    kept.subscribe_v311("t/+", 1).await;
    kept.send(subscribe_v311(2, "given-up", 1)).await;
    kept.expect(&[0x90, 3, 0, 2, 1]).await;
    kept.send(unsubscribe_v311(3, "given-up")).await;
    kept.expect(&[0xB0, 2, 0, 3]).await;
    let (_kept_v5, _) = gateway.v5("kept-v5", true, 3600).await;
    let (_ends_v5, _) = gateway.v5("ends-v5", true, 0).await;
    let mut clean = gateway.wire().await;
    clean.connect_v311("clean").await;
    clean.subscribe_v311("t/+", 1).await;

    gateway.crash();

    let mut kept = gateway.resume_v311("kept", true).await;
    assert!(gateway.v5("kept-v5", false, 3600).await.1);
    assert!(!gateway.v5("ends-v5", false, 0).await.1);
    let mut clean = gateway.resume_v311("clean", false).await;
    gateway.publish(0, "given-up", b"x").await;
    gateway.publish(0, "t/1", b"still subscribed").await;
    kept.expect(&publish_v311(1, 1, "t/1", b"still subscribed")).await;
    clean.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_while_the_gateway_is_down() {
    let mut gateway = Gateway::start();
    drop(gateway.v5("short", true, 1).await);
    drop(gateway.v5("long", true, 3600).await);
    gateway.server.kill();
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    gateway.restart();
    assert!(!gateway.v5("short", false, 1).await.1);
    assert!(gateway.v5("long", false, 3600).await.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_is_not_back_after_a_crash() {
    let mut gateway = Gateway::start();
    drop(gateway.resume_v311("press", false).await);
    let mut clean = gateway.wire().await;
    clean.connect_v311("press").await;
    gateway.crash();
    gateway.resume_v311("press", false).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_persistence_nothing_is_promised_and_nothing_is_kept() {
    let mut gateway = Gateway::with("[mqtt.persistence]\nenabled = false");
    drop(gateway.resume_v311("press", false).await);
    drop(gateway.resume_v311("press", true).await);
    gateway.crash();
    gateway.resume_v311("press", false).await.ping().await;
    assert!(!gateway.data_dir().join("sessions").exists());
}
