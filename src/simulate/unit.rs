//! What a machine makes.

/// One unit that a machine has produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub machine_id: i32,
    pub part_id: i32,
    /// 1 for a machine's first unit, then up by 1.
    pub order: i32,
    /// Milliseconds since the Unix epoch.
    pub time_of_production_ms: i64,
    /// Shift.
    pub var1: Option<i32>,
    /// Lot.
    pub var2: Option<String>,
    /// Remark.
    pub var3: Option<&'static str>,
    /// Temperature of the tool, degrees Celsius.
    pub var4: Option<i32>,
    /// Whether the unit is scrap.
    pub var5: bool,
}
