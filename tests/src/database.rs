//! What a test asks the database, past the API.

use tokio_postgres::{Client, NoTls};

/// A connection of the test's own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connected");
    // Ends with the client, or with the server that a test kills.
    tokio::spawn(connection);
    client
}

/// The rows of a query, each as its columns' texts joined by `|`, in the query's order.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut rows = Vec::new();
    for message in messages {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            let columns: Vec<&str> = (0..row.len())
                .map(|column| row.get(column).unwrap_or("null"))
                .collect();
            rows.push(columns.join("|"));
        }
    }
    rows
}

/// The only value of a query.
pub async fn value(client: &Client, sql: &str) -> String {
    let mut rows = rows(client, sql).await;
    assert_eq!(rows.len(), 1, "{sql}");
    rows.remove(0)
}
