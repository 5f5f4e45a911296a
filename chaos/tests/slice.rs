//! A slice of the suite for every change: each kind of fault once, on one whole.

use shopfloor_chaos::fault::Fault;
use shopfloor_chaos::run::{Options, run};

#[test]
fn whatever_fails_no_acknowledged_message_is_lost_or_out_of_order() {
    let faults = Fault::all();
    let options = Options {
        cycles: faults.len(),
        seed: 1,
        delivery: None,
        faults,
        rate_per_s: 300,
        audit_every: 10,
    };
    let Some(report) = run(&options).unwrap() else {
        return;
    };
    println!("{report}");
    assert_eq!(report.cycles.len(), options.cycles);
    for cycle in &report.cycles {
        assert!(cycle.acknowledged > 0, "{} struck nothing", cycle.fault);
    }
    // Packet ids of QoS 2 are kept in memory: a killed gateway may store a resend twice, so copies are not judged here.
    let totals = report.totals();
    assert_eq!((totals.missing, totals.out_of_order), (0, 0), "{report}");
}
