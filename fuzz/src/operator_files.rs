//! Files that an operator writes and a running gateway reads: passwords, and the topics of access rules.

use shopfloor_broker::fuzzing;

/// Text: the first line is a topic, the second a client's name; the others are lines of either file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let (topic, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let lines = parts.next().unwrap_or_default();
    fuzzing::password_file(lines);
    for pattern in lines.lines().take(16) {
        fuzzing::access_pattern(pattern, name, topic);
    }
}
