//! What the front counts, in this test's process: all servers of it together, so tests look for what was added.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

#[derive(Clone, Default)]
struct Counted(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

static COUNTED: OnceLock<Counted> = OnceLock::new();

/// Call before a server starts: what it looks up before is counted nowhere.
pub fn start() {
    COUNTED.get_or_init(|| {
        let counted = Counted::default();
        metrics::set_global_recorder(counted.clone()).unwrap();
        counted
    });
}

/// The counter `shopfloor_mqtt_{name}_total` for this reason.
pub fn by_reason(name: &str, reason: &str) -> u64 {
    value(&format!("shopfloor_mqtt_{name}_total reason={reason}"))
}

/// The gauge `shopfloor_mqtt_{name}`.
pub fn gauge(name: &str) -> f64 {
    f64::from_bits(value(&format!("shopfloor_mqtt_{name}")))
}

fn value(key: &str) -> u64 {
    let cells = COUNTED.get().expect("started").0.lock().unwrap();
    cells.get(key).map_or(0, |cell| cell.load(Ordering::SeqCst))
}

impl Counted {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
