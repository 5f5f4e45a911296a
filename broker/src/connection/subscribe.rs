//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use bytes::BytesMut;

use super::client::Client;
use super::output::Output;
use crate::auth::acl::MaySubscribe;
use crate::codec::encode;
use crate::codec::{DecodeError, Protocol, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, reason};
use crate::hub::Hub;
use crate::metrics;
use crate::session::{Session, SessionState};
use crate::session_parts::Subscribed;
use crate::subscriptions::Subscription;
use crate::topics;

/// Retained messages that are looked through in about the time of one packet.
const RETAINED_A_PACKET: usize = 100;
/// Filters, the same.
const FILTERS_A_PACKET: usize = 20;

/// Makes the subscriptions, answers once they are durable where they must be, then sends what is retained for them.
/// Gives what that costs, in packets: a client that subscribes again and again to all that is retained is throttled
/// for the work and not for the few bytes of its request.
pub(crate) fn subscribe(
    hub: &Hub,
    client: &Client,
    session: &Arc<Session>,
    state: &mut SessionState,
    subscribe: Subscribe,
    output: &mut Output,
) -> Result<usize, DecodeError> {
    check_answer(client, subscribe.filters.len())?;
    for (filter, options) in &subscribe.filters {
        check(filter, *options)?;
    }
    let (codes, retained) = note(hub, client, state, &subscribe);
    // The router first: whoever finds a subscription in the tree finds it carried.
    hub.fanout.update(session, &state.filters);
    for (filter, _) in &subscribe.filters {
        if let Some(Subscribed { options, id }) = state.filters.get(filter).copied() {
            let session = Arc::clone(session);
            hub.subscriptions
                .insert(filter, Subscription { session, options, id });
        }
    }
    let mut suback = BytesMut::new();
    encode::suback(&mut suback, client.protocol, subscribe.packet_id, &codes);
    let kept = hub.keep_filters(session, state, subscribe.filters.iter().map(|(filter, _)| filter));
    output.send_after(kept, suback);
    // All of the client's are looked through for the router.
    let mut cost = subscribe.filters.len() + state.filters.len() / FILTERS_A_PACKET;
    for (filter, options) in retained {
        if filter.contains(['+', '#']) {
            cost += hub.retained.len() / RETAINED_A_PACKET;
        }
        cost += hub.send_retained(session, filter, options, subscribe.subscription_id);
    }
    Ok(cost)
}

/// Filters whose retained messages are wanted.
type Wanted<'a> = Vec<(&'a str, SubscribeOptions)>;

/// Notes the subscriptions that may be made in the session. Gives the code of each filter, and those whose retained
/// messages are wanted.
fn note<'a>(
    hub: &Hub,
    client: &Client,
    state: &mut SessionState,
    subscribe: &'a Subscribe,
) -> (Vec<u8>, Wanted<'a>) {
    let (mut codes, mut retained) = (Vec::with_capacity(subscribe.filters.len()), Vec::new());
    for (filter, options) in &subscribe.filters {
        let subscribed = Subscribed {
            options: *options,
            id: subscribe.subscription_id,
        };
        let made = match refusal(hub, client, state, filter) {
            Some(refusal) => Err(refusal),
            None => state
                .subscribe(filter, subscribed)
                .ok_or((reason::QUOTA_EXCEEDED, "session_store_full")),
        };
        codes.push(match made {
            Err((reason, kind)) => {
                metrics::subscribe_refused(kind);
                reason
            }
            Ok(new) => {
                let shared = matches!(topics::split_share(filter), Some((Some(_), _)));
                if !shared && wants_retained(*options, new) {
                    retained.push((filter.as_str(), *options));
                }
                options.qos
            }
        });
    }
    (codes, retained)
}

/// One code a filter must fit a packet that the client takes.
fn check_answer(client: &Client, filters: usize) -> Result<(), DecodeError> {
    const REST_BYTES: usize = 8;
    if client.protocol == Protocol::V5 && filters + REST_BYTES > client.max_packet_bytes as usize {
        return Err(DecodeError {
            reason: reason::PACKET_TOO_LARGE,
            rule: "more filters than the packet that it takes has room for in the answer",
        });
    }
    Ok(())
}

/// Filters that no server may accept end the connection, as they do with Mosquitto.
fn check(filter: &str, options: SubscribeOptions) -> Result<(), DecodeError> {
    match topics::split_share(filter) {
        Some((group, filter)) if topics::is_filter(filter) => {
            if group.is_some() && options.no_local {
                return Err(DecodeError::protocol(
                    "a shared subscription with the no-local option",
                ));
            }
            Ok(())
        }
        _ => Err(DecodeError::malformed("an invalid topic filter")),
    }
}

/// Filters that are over this server's limits or not for this client are refused one by one.
fn refusal(hub: &Hub, client: &Client, state: &SessionState, filter: &str) -> Option<(u8, &'static str)> {
    if !topics::within_limits(filter, hub.config.max_topic_bytes, hub.config.max_topic_levels) {
        return Some((reason::TOPIC_FILTER_INVALID, "topic_limits"));
    }
    if hub.acl.may_subscribe(&client.publisher.who(), filter) == MaySubscribe::No {
        return Some((hub.config.acl.refused_subscribe_v5.reason(), "not_authorized"));
    }
    let full =
        state.filters.len() >= hub.config.session.max_subscriptions && !state.filters.contains_key(filter);
    full.then_some((reason::QUOTA_EXCEEDED, "too_many"))
}

/// Removes the subscriptions that the access rules permit no more. True where each delivery is to be checked: one
/// was removed, or one that stays selects topics that are denied.
pub(crate) fn revoke(hub: &Hub, client: &Client, session: &Arc<Session>, state: &mut SessionState) -> bool {
    let mut in_part = false;
    let mut revoked = Vec::new();
    for filter in state.filters.keys() {
        match hub.acl.may_subscribe(&client.publisher.who(), filter) {
            MaySubscribe::All => {}
            MaySubscribe::Some => in_part = true,
            MaySubscribe::No => revoked.push(filter.clone()),
        }
    }
    for filter in &revoked {
        tracing::info!(
            client = session.client_id,
            filter,
            "subscription revoked by the access rules"
        );
        metrics::subscribe_refused("revoked");
        state.unsubscribe(filter);
        hub.subscriptions.remove(filter, session.key);
    }
    if !revoked.is_empty() {
        hub.fanout.update(session, &state.filters);
        // Nobody waits for it: a start that finds them revokes them again.
        let _kept = hub.keep_filters(session, state, revoked.iter());
    }
    in_part || !revoked.is_empty()
}

fn wants_retained(options: SubscribeOptions, new: bool) -> bool {
    match options.retain_handling {
        RetainHandling::Always => true,
        RetainHandling::OnlyIfNew => new,
        RetainHandling::Never => false,
    }
}

/// Removes the subscriptions and answers, also for those that were never made. Gives what that costs, in packets.
pub(crate) fn unsubscribe(
    hub: &Hub,
    client: &Client,
    session: &Arc<Session>,
    state: &mut SessionState,
    unsubscribe: &Unsubscribe,
    output: &mut Output,
) -> Result<usize, DecodeError> {
    check_answer(client, unsubscribe.filters.len())?;
    let mut codes = Vec::with_capacity(unsubscribe.filters.len());
    for filter in &unsubscribe.filters {
        check(filter, SubscribeOptions::default())?;
        let existed = state.unsubscribe(filter) && hub.subscriptions.remove(filter, session.key);
        codes.push(if existed {
            reason::SUCCESS
        } else {
            reason::NO_SUBSCRIPTION_EXISTED
        });
    }
    hub.fanout.update(session, &state.filters);
    let mut unsuback = BytesMut::new();
    encode::unsuback(&mut unsuback, client.protocol, unsubscribe.packet_id, &codes);
    let kept = hub.keep_filters(session, state, unsubscribe.filters.iter());
    output.send_after(kept, unsuback);
    Ok(unsubscribe.filters.len())
}
