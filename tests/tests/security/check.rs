//! `shopfloor check` before a gateway is started with a broken configuration.

use shopfloor_tests::operator;

use crate::pki::Pki;

#[test]
fn check_names_every_problem_of_certificates_users_and_rules_at_its_place() {
    let pki = Pki::new();
    let dir = pki.dir.path().display();
    pki.write("other.key", &pki.issue("other", 2).key.serialize_pem());
    pki.write("no.pem", "no certificate\n");
    pki.write(
        "passwords",
        "# users\noperator:geheim\nmill:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA\nnobody\n",
    );
    pki.write(
        "acl.toml",
        "[[rules]]\naccess = \"read\"\ntopics = [\"a/#/b\", \"x%u\"]\n\n[[rules]]\naccess = \"deny\"\ntopics = []\n",
    );
    let config = format!(
        r#"[gateway]
data_dir = "{dir}/data"

[[mqtt.listeners]]
listen = "127.0.0.1:1"
transport = "tls"
tls = {{ certificate = "{dir}/missing.pem", key = "{dir}/no.pem", client_ca = "{dir}/no.pem", crl = "{dir}/missing.pem" }}

[[mqtt.listeners]]
listen = "127.0.0.1:2"
transport = "wss"
tls = {{ certificate = "{dir}/server.pem", key = "{dir}/other.key", require_client_certificate = true }}

[[mqtt.listeners]]
listen = "127.0.0.1:3"
transport = "tls"

[mqtt.auth]
password_file = "{dir}/passwords"
users = [{{ name = "press", password = "" }}]

[mqtt.acl]
file = "{dir}/acl.toml"
rules = [{{ access = "write", topics = ["a+"] }}]
"#
    );
    pki.write("config.toml", &config);
    let path = pki.path("config.toml").display().to_string();
    let ran = operator::shopfloor(&["check", "--config", &path]).ended(1);
    let expected = [
        (7, "mqtt.listeners[0].tls.client_ca", "no.pem holds none"),
        (7, "mqtt.listeners[0].tls.crl", "missing.pem cannot be read"),
        (
            7,
            "mqtt.listeners[0].tls.certificate",
            "missing.pem cannot be read",
        ),
        (7, "mqtt.listeners[0].tls.key", "no.pem cannot be read"),
        (12, "mqtt.listeners[1].tls.client_ca", "is missing"),
        (12, "mqtt.listeners[1].tls.key", "other.key does not go with"),
        (14, "mqtt.listeners[2].tls", "is missing"),
        (19, "mqtt.auth.password_file", "passwords:2: has no password hash"),
        (
            19,
            "mqtt.auth.password_file",
            "passwords:3: has a hash that is not argon2id",
        ),
        (19, "mqtt.auth.password_file", "passwords:4: is no name:hash"),
        (20, "mqtt.auth.users[0]", "the password is empty"),
        (24, "mqtt.acl.rules[0].topics[0]", "\"a+\""),
        (23, "mqtt.acl.file", "rules[0].topics[0] of"),
        (23, "mqtt.acl.file", "rules[0].topics[1] of"),
        (23, "mqtt.acl.file", "rules[1].topics of"),
    ];
    let said: Vec<_> = ran.stderr.lines().collect();
    for (line, at, why) in expected {
        let place = format!("config.toml:{line}:");
        let named = said
            .iter()
            .any(|said| said.contains(&place) && said.contains(at) && said.contains(why));
        assert!(named, "{at} {why} is not named in\n{}", ran.stderr);
    }
    assert_eq!(said.len(), expected.len(), "{}", ran.stderr);
}
