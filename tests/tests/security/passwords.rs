//! Users of `shopfloor passwd`, with Mosquitto's clients: these end with the code that CONNACK gave them.

use crate::Gateway;
use crate::clients::{As, publish};

#[test]
fn a_user_of_the_password_file_is_let_in_and_everybody_else_is_told_why_not() {
    let gateway = Gateway::start();
    let codes = [
        (As::User("operator", "geheim"), [0, 0]),
        // Bad user name or password, whichever of the two it is.
        (As::User("operator", "falsch"), [4, 0x86]),
        (As::User("nobody", "geheim"), [4, 0x86]),
        // Not authorized: it says nothing of itself.
        (As::Nobody, [5, 0x87]),
    ];
    for (who, [v311, v5]) in codes {
        publish(gateway.tcp, "mqttv311", &who, "factory/operator/state").ended(v311);
        publish(gateway.tcp, "mqttv5", &who, "factory/operator/state").ended(v5);
    }
}
