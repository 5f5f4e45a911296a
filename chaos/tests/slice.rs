//! A slice of the suite for every change: each kind of fault once, on one whole.

use std::collections::BTreeSet;

use shopfloor_chaos::fault::Fault;
use shopfloor_chaos::run::{Options, run};

#[test]
fn whatever_fails_every_acknowledged_message_is_there_once_and_in_order() {
    let faults = Fault::all();
    let options = Options {
        cycles: faults.len(),
        seed: 1,
        delivery: Some("exactly-once".to_owned()),
        faults,
        rate_per_s: 300,
        audit_every: 10,
    };
    let Some(report) = run(&options).unwrap() else {
        return;
    };
    println!("{report}");
    assert_eq!(report.cycles.len(), options.cycles);
    let kinds: BTreeSet<_> = report.cycles.iter().map(|cycle| cycle.fault).collect();
    assert_eq!(kinds.len() + report.not_run.len(), options.faults.len());
    for cycle in &report.cycles {
        assert!(cycle.acknowledged > 0, "{} struck nothing", cycle.fault);
    }
    assert!(report.is_good(), "{report}");
}
