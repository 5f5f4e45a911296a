//! What the query of a list asks for: a page, and what its rows must have.
//!
//! The original ignored queries, and answered `?limit=1` with the whole list. So a query that names none of a list's
//! parameters changes nothing; one that names any must be right in all of it.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::HeaderValue;
use http::request::Parts;

use crate::cursor::{self, Key};
use crate::error::Error;

const SIZE: &str = "pageSize";
const AFTER: &str = "after";
/// Rows of a page where the client gives only `after`.
const DEFAULT_ROWS: u32 = 100;

/// The query as it was sent.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let text = parts.uri.query().unwrap_or_default();
        Ok(Self(
            form_urlencoded::parse(text.as_bytes()).into_owned().collect(),
        ))
    }
}

/// A query that names parameters of its list, and what is wrong with it so far.
#[derive(Debug)]
pub(crate) struct Asked<'q> {
    /// The list's path under `/api/v1`.
    list: &'static str,
    values: BTreeMap<&'q str, &'q str>,
    pub(crate) faults: Vec<String>,
}

impl Query {
    /// `None` where the query names neither a page nor one of `filters`.
    pub(crate) fn of(&self, list: &'static str, filters: &[&str]) -> Option<Asked<'_>> {
        let is_known = |name: &str| name == SIZE || name == AFTER || filters.contains(&name);
        let names_any = self.0.iter().any(|(name, _)| is_known(name));
        names_any.then(|| self.asked(list, is_known))
    }

    /// For what the original had not, so that nobody depends on names that mean nothing: `names` and no other.
    pub(crate) fn exactly(&self, list: &'static str, names: &[&str]) -> Asked<'_> {
        self.asked(list, |name| names.contains(&name))
    }

    fn asked(&self, list: &'static str, is_known: impl Fn(&str) -> bool) -> Asked<'_> {
        let (mut values, mut faults) = (BTreeMap::new(), Vec::new());
        for (name, value) in &self.0 {
            if !is_known(name) {
                faults.push(format!("property {name} should not exist"));
            } else if values.insert(name.as_str(), value.as_str()).is_some() {
                faults.push(format!("{name} must be given once"));
            }
        }
        Asked { list, values, faults }
    }

    /// The page of a list that has no filters, where one is asked for.
    pub(crate) fn page_of(&self, list: &'static str, max_rows: u32) -> Result<Option<Page<i32>>, Error> {
        let Some(mut asked) = self.of(list, &[]) else {
            return Ok(None);
        };
        let page = asked.page(max_rows);
        asked.check()?;
        Ok(page)
    }
}

impl Asked<'_> {
    /// The value of a filter, read by `read`; where it cannot be read, `must` says what it must be.
    pub(crate) fn filter<T>(
        &mut self,
        name: &str,
        must: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.values.get(name)?);
        if value.is_none() {
            self.faults.push(format!("{name} must be {must}"));
        }
        value
    }

    /// The page, where one is asked for.
    pub(crate) fn page<K: Key>(&mut self, max_rows: u32) -> Option<Page<K>> {
        let (size, after) = (self.values.get(SIZE), self.values.get(AFTER));
        if size.is_none() && after.is_none() {
            return None;
        }
        let filters = self.filters();
        let of = crc32c::crc32c(format!("{}?{filters}", self.list).as_bytes());
        let rows = size.map_or(Some(DEFAULT_ROWS.min(max_rows)), |size| {
            whole_number(size).filter(|rows| (1..=max_rows).contains(rows))
        });
        let key = after.map(|after| cursor::read(of, after));
        if rows.is_none() {
            let text = format!("{SIZE} must be a whole number from 1 to {max_rows}");
            self.faults.push(text);
        }
        if key.as_ref().is_some_and(Option::is_none) {
            let text = "after must be the cursor of this list with these filters, as the Link header has it";
            self.faults.push(text.into());
        }
        Some(Page {
            rows: rows?,
            after: key.flatten(),
            list: self.list,
            of,
            filters,
        })
    }

    /// Refuses the query where anything is wrong with it.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Fields(self.faults))
        }
    }

    /// In one order, whatever the client's.
    fn filters(&self) -> String {
        let filters = self
            .values
            .iter()
            .filter(|(name, _)| **name != SIZE && **name != AFTER);
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(filters)
            .finish()
    }
}

/// Digits alone: what `parse` takes beside them, such as a plus, no other part of the contract takes.
pub(crate) fn whole_number<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// A page of a list in the order of `K`.
#[derive(Debug)]
pub(crate) struct Page<K> {
    pub(crate) rows: u32,
    /// The last row of the page before.
    pub(crate) after: Option<K>,
    list: &'static str,
    /// What cursors of this list with these filters carry.
    of: u32,
    filters: String,
}

impl<K: Key> Page<K> {
    /// `Link` to the page after the row at `last`.
    pub(crate) fn link_after(&self, last: K) -> Option<HeaderValue> {
        let (list, rows, cursor) = (self.list, self.rows, cursor::write(self.of, last));
        let filters = if self.filters.is_empty() {
            String::new()
        } else {
            format!("&{}", self.filters)
        };
        let link = format!("</api/v1{list}?{SIZE}={rows}&{AFTER}={cursor}{filters}>; rel=\"next\"");
        link.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    fn faults(text: &str) -> Vec<String> {
        let query = query(text);
        let mut asked = query.of("/units", &["machineId"]).unwrap();
        let _page: Option<Page<i32>> = asked.page(1000);
        asked.faults
    }

    #[test]
    fn a_query_without_a_parameter_of_the_list_asks_for_nothing() {
        for text in ["", "limit=1", "x=1&y", "PAGESIZE=1"] {
            assert!(query(text).of("/units", &["machineId"]).is_none(), "{text}");
        }
        assert!(query("machineId=1").of("/materials", &[]).is_none());
    }

    #[test]
    fn every_fault_is_told_at_once_and_by_name() {
        assert_eq!(
            faults("pageSize=0&after=x&limit=1"),
            [
                "property limit should not exist",
                "pageSize must be a whole number from 1 to 1000",
                "after must be the cursor of this list with these filters, as the Link header has it",
            ]
        );
        assert_eq!(faults("pageSize=1&pageSize=2"), ["pageSize must be given once"]);
        for size in ["", "-1", "1.5", "1001", "99999999999", "1e2", "%2B2", "+2"] {
            assert_eq!(faults(&format!("pageSize={size}")).len(), 1, "{size}");
        }
        assert_eq!(faults("machineId=5&pageSize=1000"), Vec::<String>::new());
    }

    #[test]
    fn a_link_leads_to_the_next_page_of_the_same_list_with_the_same_filters() {
        let first = query("machineId=5&pageSize=2");
        let mut asked = first.of("/units", &["machineId"]).unwrap();
        let page: Page<i32> = asked.page(10).unwrap();
        let link = page.link_after(17).unwrap();
        let link = link.to_str().unwrap();
        let (target, rel) = link.split_once('>').unwrap();
        assert_eq!(rel, "; rel=\"next\"");
        let (path, next) = target.split_once('?').unwrap();
        assert_eq!(path, "</api/v1/units");
        let follow = |text: &str| {
            let query = query(text);
            let mut asked = query.of("/units", &["machineId"]).unwrap();
            let page: Option<Page<i32>> = asked.page(10);
            (page.map(|page| (page.rows, page.after)), asked.faults.len())
        };
        assert_eq!(follow(next), (Some((2, Some(17))), 0));
        assert_eq!(follow(&next.replace("machineId=5", "machineId=6")).1, 1);
    }
}
