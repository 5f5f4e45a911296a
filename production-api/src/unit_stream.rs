//! Live updates of units as server-sent events: gapless over reconnects and over API processes.
//!
//! - Every event has an id; a client that comes back with it as `Last-Event-ID`, to any API process, goes on behind it.
//! - An event `unit` is a unit as it is now, `deleted` the id of one that is gone, `left` the id of one that the
//!   stream's filter no longer takes.
//! - An event `reset` says that changes since the last id are no longer known: the client reads the list again. The
//!   stream goes on from then.
//! - In quiet times an id alone comes, so that a client's last id does not grow too old to go on from.
//! - An id is told once it is known to be one of this database's; an answer to another one begins with `reset`.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::UnitStreamConfig;
use crate::error::Error;
use crate::metrics;
use crate::store::unit_changes::{Change, Changes, Place};
use crate::store::{Store, StoreError};
use crate::validate::unit_filter::UnitFilter;

/// Events between a stream's reader of the database and its client.
const EVENTS_AHEAD: usize = 32;
/// After which a client that lost its connection comes back.
const RETRY: Duration = Duration::from_secs(2);

/// All streams of this process.
#[derive(Debug)]
pub(crate) struct UnitStreams {
    config: UnitStreamConfig,
    store: Store,
    places: Arc<Semaphore>,
    /// Streams end with the server.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// Its client left.
    Left,
    /// Its client did not read.
    Slow,
    /// An event could not be written as JSON.
    Unwritten,
}

impl End {
    fn reason(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Slow => "slow",
            Self::Unwritten => "unwritten",
        }
    }
}

impl UnitStreams {
    pub(crate) fn new(
        config: &UnitStreamConfig,
        store: &Store,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        Self {
            config: config.clone(),
            store: store.clone(),
            places: Arc::new(Semaphore::new(config.max_streams)),
            stop: stop.clone(),
            tasks: tasks.clone(),
        }
    }

    /// Opens a stream behind `last_id`, from now where there is none.
    pub(crate) async fn open(
        &self,
        filter: UnitFilter,
        last_id: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Event, axum::Error>> + Send + use<>, Error> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            metrics::unit_stream_ended("no_place");
            Error::Unavailable("too many streams of units are open, try again".into())
        })?;
        let now = self.store.unit_changes_from_now().await?;
        // An empty one is none. What is no id of ours is like one that is too old: the client reads the list again.
        let from = last_id.filter(|id| !id.is_empty()).map(str::parse::<Place>);
        let (into, events) = mpsc::channel(EVENTS_AHEAD);
        let feed = Feed {
            config: self.config.clone(),
            store: self.store.clone(),
            filter,
            seen: from.and_then(Result::ok).unwrap_or(now),
            is_known: false,
            told_at: Instant::now(),
            into,
            _place: place,
        };
        let is_foreign = from.is_some_and(|from| from.is_err());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            metrics::unit_streams(1.0);
            let ended = stop
                .run_until_cancelled_owned(Box::pin(feed.run(is_foreign)))
                .await;
            metrics::unit_streams(-1.0);
            metrics::unit_stream_ended(ended.map_or("stop", |end| end.reason()));
        });
        Ok(stream::unfold(events, |mut events| async move {
            Some((Ok(events.recv().await?), events))
        }))
    }
}

/// The way from the database to one client. A task of its own: a body whose client does not read is not polled, and
/// could not keep the time.
struct Feed {
    config: UnitStreamConfig,
    store: Store,
    filter: UnitFilter,
    seen: Place,
    /// The client was told an id, and how soon to come back.
    is_known: bool,
    /// When the client was last told anything.
    told_at: Instant,
    into: mpsc::Sender<Event>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    async fn run(mut self, is_foreign: bool) -> End {
        match self.follow(is_foreign).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow(&mut self, is_foreign: bool) -> Result<std::convert::Infallible, End> {
        if is_foreign {
            self.reset(self.seen).await?;
        }
        loop {
            let looked = self.store.bounded(self.store.unit_changes(self.seen)).await;
            match looked {
                Ok(Changes::Some { units, more }) => {
                    if !self.is_known {
                        self.tell(Event::default()).await?;
                    }
                    for change in units {
                        self.send(change).await?;
                    }
                    if more {
                        continue;
                    }
                }
                Ok(Changes::Gap) => match self.store.bounded(self.store.unit_changes_from_now()).await {
                    Ok(now) => self.reset(now).await?,
                    Err(error) => later(&error),
                },
                // The client's connection is fine; it goes on when the database does.
                Err(error) => later(&error),
            }
            if self.told_at.elapsed() >= Duration::from_millis(self.config.heartbeat_ms) {
                let quiet = Event::default().comment("");
                if self.is_known {
                    self.tell(quiet).await?;
                } else {
                    self.write(quiet).await?;
                }
            }
            tokio::select! {
                () = self.into.closed() => return Err(End::Left),
                () = sleep(Duration::from_millis(self.config.poll_interval_ms)) => {}
            }
        }
    }

    async fn send(&mut self, change: Change) -> Result<(), End> {
        self.seen = change.place;
        let fitted = change
            .before
            .is_some_and(|before| self.filter.fits(before.machine_id, before.part_id));
        let only_id = |name| {
            let event = Event::default().event(name);
            event.json_data(json!({"id": change.id}))
        };
        let event = match &change.unit {
            Some(unit) if self.filter.fits(unit.machine_id, unit.part_id) => {
                Event::default().event("unit").json_data(unit)
            }
            Some(_) if fitted => only_id("left"),
            None if fitted => only_id("deleted"),
            _ => return Ok(()),
        };
        metrics::unit_stream_event();
        self.tell(event.map_err(|_| End::Unwritten)?).await
    }

    async fn reset(&mut self, now: Place) -> Result<(), End> {
        self.seen = now;
        let text = "changes since the last event are no longer known: read the list again";
        let event = Event::default().event("reset").json_data(json!({"reason": text}));
        self.tell(event.map_err(|_| End::Unwritten)?).await
    }

    /// Every event carries how far the client has come with it, and the first one how soon to come back.
    async fn tell(&mut self, event: Event) -> Result<(), End> {
        let event = event.id(self.seen.to_string());
        let is_first = !std::mem::replace(&mut self.is_known, true);
        self.write(if is_first { event.retry(RETRY) } else { event })
            .await
    }

    async fn write(&mut self, event: Event) -> Result<(), End> {
        self.told_at = Instant::now();
        let within = Duration::from_millis(self.config.slow_client_ms);
        match timeout(within, self.into.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Slow),
        }
    }
}

fn later(error: &StoreError) {
    tracing::debug!(error = error.chain(), "a stream of units goes on later");
}
