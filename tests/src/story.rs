//! What the demos print for a person to read, beyond what the programs say themselves.

use serde_json::Value;

/// A line of the records for people: when, who, what, whom, what came of it.
pub fn in_a_line(record: &str) -> Option<String> {
    let record: Value = serde_json::from_str(record).ok()?;
    let field = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let why = field("why");
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    let (time, requester, action) = (field("time"), field("requester"), field("action"));
    Some(format!("{time}  {requester}  {action:7} {:12} {}{why}", field("target"), field("outcome")))
}

/// The same text, each line of it a little to the right.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}
