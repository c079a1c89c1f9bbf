//! Training and test records as JSON lines: `{"prompt", "completion"}`, `{"messages": […]}` or `{"text"}`; a `*.txt` file is one text. Reads with limits and says what is
//! wrong where; writes every record in one way only. It knows nothing of tokens, splits or steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::files;
use crate::steps::Failure;

/// Longest line, and largest text file, that is read. A prompt for a small model has a few kilobytes, a book some megabytes; what is longer is
/// almost surely not JSON lines.
pub const MAX_LINE_BYTES: u64 = 64 << 20;

/// Most bytes that one set may hold, since it is kept in memory while a step works on it.
pub const MAX_SET_BYTES: u64 = 4 << 30;

/// How many wrong lines are shown before reading stops.
const MAX_PROBLEMS: usize = 20;

/// One example, in one of the three shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Pair { prompt: String, completion: Option<String> },
    Messages(Vec<Message>),
    Text(String),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`
    pub role: String,
    pub content: String,
}

/// A record and the other keys of its line, which no model sees: an id, a site, a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub record: Record,
    pub extra: BTreeMap<String, Value>,
}

impl Record {
    /// What a model is asked: the prompt, the messages up to the last one of the assistant, or the whole text.
    pub fn prompt(&self) -> String {
        match self {
            Record::Pair { prompt, .. } => prompt.clone(),
            Record::Text(text) => text.clone(),
            Record::Messages(messages) => {
                let asked = messages.iter().rposition(|message| message.role == "assistant").unwrap_or(messages.len());
                messages[..asked].iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// What a model shall answer: the completion, or the assistant's last message.
    pub fn completion(&self) -> Option<&str> {
        match self {
            Record::Pair { completion, .. } => completion.as_deref(),
            Record::Messages(messages) => messages.iter().rfind(|m| m.role == "assistant").map(|m| m.content.as_str()),
            Record::Text(_) => None,
        }
    }
}

/// All records of files, or of the `*.jsonl` and `*.txt` files below folders, in the paths' order. Other keys than a record's own are left out.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Record>, Failure> {
    let mut records = Vec::new();
    read_lines(paths, &mut |line| {
        records.push(line.record);
        Ok(())
    })?;
    Ok(records)
}

/// Calls `each` for every line in order; an empty line is passed over. Up to 20 wrong lines are told at once.
pub fn read_lines(paths: &[PathBuf], each: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut reading = Reading { bytes: 0, problems: Vec::new() };
    for file in paths.iter().map(|path| files_of(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        reading.file(&file, each)?;
        if reading.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    reading.end("each line is one JSON object: {\"prompt\", \"completion\"}, {\"messages\": [{\"role\", \"content\"}]} or {\"text\"}")
}

/// All lines as JSON objects of any keys, for those who know what the keys mean.
pub fn read_objects(paths: &[PathBuf]) -> Result<Vec<BTreeMap<String, Value>>, Failure> {
    let mut reading = Reading { bytes: 0, problems: Vec::new() };
    let mut objects = Vec::new();
    for file in paths.iter().map(|path| files_of(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        if is_text(&file) {
            reading.problems.push(format!("{}: a text, not JSON lines", file.display()));
        } else {
            reading.json_lines(&file, &mut |_, bytes, number| {
                objects.extend(object(bytes, number)?);
                Ok(Ok(()))
            })?;
        }
        if reading.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    reading.end("each line is one JSON object").map(|()| objects)
}

/// Writes records as JSON lines: one order of keys, no spaces, `\n` behind each, so that equal records give equal bytes.
pub fn write(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    let mut keys = Keys { out, first: true };
    match &line.record {
        Record::Pair { prompt, completion } => {
            keys.put("prompt", prompt)?;
            if let Some(completion) = completion {
                keys.put("completion", completion)?;
            }
        }
        Record::Messages(messages) => keys.put("messages", messages)?,
        Record::Text(text) => keys.put("text", text)?,
    }
    for (key, value) in &line.extra {
        keys.put(key, value)?;
    }
    out.write_all(b"}\n")
}

struct Keys<'a> {
    out: &'a mut dyn Write,
    first: bool,
}

impl Keys<'_> {
    fn put<T: serde::Serialize + ?Sized>(&mut self, key: &str, value: &T) -> io::Result<()> {
        self.out.write_all(if self.first { b"{" } else { b"," })?;
        self.first = false;
        serde_json::to_writer(&mut *self.out, key)?;
        self.out.write_all(b":")?;
        Ok(serde_json::to_writer(&mut *self.out, value)?)
    }
}

impl serde::Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut message = serializer.serialize_struct("Message", 2)?;
        message.serialize_field("role", &self.role)?;
        message.serialize_field("content", &self.content)?;
        message.end()
    }
}

/// A text is a file of this ending, everything else is JSON lines.
fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "txt")
}

/// A file is itself, whatever its name; a folder is its `*.jsonl` and `*.txt` files.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let facts = std::fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
    if !facts.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let names = files::walk(path).map_err(|error| Failure::file("read", path, &error))?;
    let found: Vec<PathBuf> = names
        .into_iter()
        .filter(|name| is_text(name) || name.extension().is_some_and(|end| end == "jsonl"))
        .map(|name| path.join(name))
        .collect();
    if found.is_empty() {
        return Err(Failure::new(format!("`{}` holds no *.jsonl and no *.txt file", path.display()))
            .help("a dataset is a file of JSON lines or a text file (.txt), or a folder with files that end in .jsonl or .txt"));
    }
    Ok(found)
}

/// Outside, what is wrong with the line; inside, why reading must stop.
type EachLine<'a> = dyn FnMut(bool, &[u8], u64) -> Result<Result<(), Failure>, String> + 'a;

struct Reading {
    bytes: u64,
    problems: Vec<String>,
}

impl Reading {
    fn file(&mut self, path: &Path, each: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
        if !is_text(path) {
            return self.json_lines(path, &mut |is_well, bytes, number| match parse(bytes, number)? {
                Some(line) if is_well => Ok(each(line)),
                _ => Ok(Ok(())),
            });
        }
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let mut bytes = Vec::new();
        let n = File::open(path).and_then(|file| file.take(MAX_LINE_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)? as u64;
        self.text(path, n, bytes, each)
    }

    /// Calls `each` with every line and its number, and with whether all was well so far; what it says is wrong is a problem of that line.
    fn json_lines(&mut self, path: &Path, each: &mut EachLine) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let mut bytes = Vec::new();
        for number in 1u64.. {
            bytes.clear();
            // One byte beyond the limit tells a long line from one that just fits; no more than that is ever held.
            let n = (&mut file).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(failed)? as u64;
            if n == 0 {
                return Ok(());
            }
            self.count(n)?;
            if n > MAX_LINE_BYTES {
                let limit = MAX_LINE_BYTES >> 20;
                self.problems.push(format!("{}:{number}: the line is longer than {limit} MiB: is this JSON lines?", path.display()));
                return Ok(());
            }
            match each(self.problems.is_empty(), &bytes, number) {
                Ok(done) => done?,
                Err(problem) => self.problems.push(format!("{}:{number}: {problem}", path.display())),
            }
            if self.problems.len() >= MAX_PROBLEMS {
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes <= MAX_SET_BYTES {
            return Ok(());
        }
        Err(Failure::new(format!("the data holds more than {} GiB", MAX_SET_BYTES >> 30))
            .help("train on less of it, or shorten it with a `dataset` step"))
    }

    fn text(&mut self, path: &Path, n: u64, bytes: Vec<u8>, each: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
        self.count(n)?;
        if n > MAX_LINE_BYTES {
            self.problems.push(format!("{}: the text is longer than {} MiB: divide it", path.display(), MAX_LINE_BYTES >> 20));
            return Ok(());
        }
        match String::from_utf8(bytes) {
            Ok(text) if self.problems.is_empty() => each(Line { record: Record::Text(text), extra: BTreeMap::new() }),
            Ok(_) => Ok(()),
            Err(error) => {
                let place = error.utf8_error().valid_up_to() + 1;
                self.problems.push(format!("{}: byte {place} is not UTF-8", path.display()));
                Ok(())
            }
        }
    }

    fn end(self, help: &str) -> Result<(), Failure> {
        let count = match self.problems.len() {
            0 => return Ok(()),
            1 => "one line is wrong".to_string(),
            n if n < MAX_PROBLEMS => format!("{n} lines are wrong"),
            _ => format!("the first {MAX_PROBLEMS} wrong lines"),
        };
        Err(Failure::new(format!("cannot read the data: {count}\n{}", self.problems.join("\n"))).help(help))
    }
}

/// The line as a record, `None` for an empty one, or what was expected.
fn parse(bytes: &[u8], number: u64) -> Result<Option<Line>, String> {
    let Some(mut keys) = object(bytes, number)? else { return Ok(None) };
    let record = take_record(&mut keys)?;
    if let Record::Pair { completion: None, .. } = record
        && let Some(slip) = keys.keys().find(|key| is_nearly(key, "completion"))
    {
        return Err(format!("unknown key `{}`: did you mean `completion`?", shown(slip)));
    }
    Ok(Some(Line { record, extra: keys }))
}

/// The line as a JSON object, `None` for an empty one. `number` is 1 for a file's first line, which may start with a byte order mark.
fn object(bytes: &[u8], number: u64) -> Result<Option<BTreeMap<String, Value>>, String> {
    let bytes = if number == 1 { bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes) } else { bytes };
    let text = std::str::from_utf8(bytes).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(|Object(keys)| Some(keys)).map_err(|error| json_problem(&error))
}

/// Without serde's `at line 1`: the file's line stands in front.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    match error.classify() {
        serde_json::error::Category::Data => what.to_string(),
        _ => format!("not JSON: {what} at column {}", error.column()),
    }
}

fn take_record(keys: &mut BTreeMap<String, Value>) -> Result<Record, String> {
    let shapes: Vec<&str> = ["prompt", "messages", "text"].into_iter().filter(|key| keys.contains_key(*key)).collect();
    match shapes[..] {
        ["prompt"] => {
            let prompt = take_string(keys, "prompt")?;
            let completion = match keys.get("completion") {
                Some(Value::Null) | None => keys.remove("completion").and(None),
                Some(_) => Some(take_string(keys, "completion")?),
            };
            Ok(Record::Pair { prompt, completion })
        }
        [] | [_] if keys.contains_key("completion") => Err("`completion` belongs to a `prompt`, and to nothing else".into()),
        ["messages"] => take_messages(keys.remove("messages").unwrap_or_default()).map(Record::Messages),
        ["text"] => take_string(keys, "text").map(Record::Text),
        [] => Err(format!("expected `prompt`, `messages` or `text`, found {}", listed(keys))),
        [..] => Err(format!(
            "expected one of {}, found all of them",
            shapes.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn take_string(keys: &mut BTreeMap<String, Value>, name: &str) -> Result<String, String> {
    match keys.remove(name) {
        Some(Value::String(text)) => Ok(text),
        other => Err(format!("`{name}` must be a string, not {}", noun(&other.unwrap_or_default()))),
    }
}

fn take_messages(value: Value) -> Result<Vec<Message>, String> {
    let Value::Array(items) = value else { return Err(format!("`messages` must be a list, not {}", noun(&value))) };
    if items.is_empty() {
        return Err("`messages` is empty".into());
    }
    items.into_iter().enumerate().map(|(i, item)| take_message(item).map_err(|error| format!("message {}: {error}", i + 1))).collect()
}

/// Strict about its keys: `tool_calls` or a list of images, say, would change what the conversation means.
fn take_message(value: Value) -> Result<Message, String> {
    let Value::Object(item) = value else { return Err(format!("expected a table, not {}", noun(&value))) };
    let mut keys: BTreeMap<String, Value> = item.into_iter().collect();
    let (role, content) = (take_string(&mut keys, "role")?, take_string(&mut keys, "content")?);
    if !["system", "user", "assistant", "tool"].contains(&role.as_str()) {
        return Err(format!("unknown role `{}`: expected `system`, `user`, `assistant` or `tool`", shown(&role)));
    }
    match keys.keys().next() {
        Some(key) => Err(format!("unknown key `{}`: only `role` and `content` are understood", shown(key))),
        None => Ok(Message { role, content }),
    }
}

/// A key that is nearly `completion` is a slip, and would silently lose the labels; any other key is harmless.
fn is_nearly(key: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(&key.to_lowercase(), known) <= 1
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn listed(keys: &BTreeMap<String, Value>) -> String {
    let names: Vec<String> = keys.keys().take(8).map(|key| format!("`{}`", shown(key))).collect();
    if names.is_empty() { "no keys".into() } else { names.join(", ") }
}

/// A key as a message may show it: short and on one line.
fn shown(key: &str) -> String {
    key.chars().take(40).flat_map(char::escape_debug).collect()
}

/// A JSON object, refusing a key that stands twice (other readers keep the first, or the last).
struct Object(BTreeMap<String, Value>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut keys = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if keys.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("the key `{}` stands twice", shown(&key))));
                    }
                    keys.insert(key, value);
                }
                Ok(Object(keys))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Vec<Line>, Failure> {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("data.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Vec::new();
        read_lines(&[path], &mut |line| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    fn problem(bytes: &[u8]) -> String {
        read_bytes(bytes).unwrap_err().message
    }

    fn written(line: &Line) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, line).unwrap();
        bytes
    }

    #[test]
    fn the_three_shapes_are_read_and_other_keys_kept_aside() {
        let text = "\u{feff}{\"prompt\": \"a\", \"id\": 7}\r\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\",\"completion\":null}\n\
            {\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}\n{\"text\":\"t\"}";
        let lines = read_bytes(text.as_bytes()).unwrap();
        let pair = |completion: Option<&str>| Record::Pair { prompt: "a".into(), completion: completion.map(String::from) };
        let records: Vec<Record> = lines.iter().map(|line| line.record.clone()).collect();
        assert_eq!(records[..3], [pair(None), pair(Some("b")), pair(None)]);
        assert_eq!((records[3].prompt(), records[3].completion()), ("hi".to_string(), Some("yo")));
        assert_eq!(records[4], Record::Text("t".into()));
        assert_eq!(lines[0].extra["id"], 7);
        assert_eq!(written(&lines[0]), b"{\"prompt\":\"a\",\"id\":7}\n");
    }

    #[test]
    fn each_wrong_line_says_what_was_expected() {
        for (line, expected) in [
            ("{\"prompt\":3}", "`prompt` must be a string, not a number"),
            ("{\"question\":\"a\",\"answer\":\"b\"}", "expected `prompt`, `messages` or `text`, found `answer`, `question`"),
            ("{}", "found no keys"),
            ("[1]", "expected a JSON object"),
            ("{\"prompt\":\"a\"", "not JSON: EOF while parsing an object at column 13"),
            ("{\"prompt\":\"a\",\"prompt\":\"b\"}", "the key `prompt` stands twice"),
            ("{\"prompt\":\"a\",\"Completions\":\"b\"}", "unknown key `Completions`: did you mean `completion`?"),
            ("{\"prompt\":\"a\",\"text\":\"b\"}", "expected one of `prompt`, `text`, found all of them"),
            ("{\"completion\":\"a\"}", "`completion` belongs to a `prompt`"),
            ("{\"messages\":[]}", "`messages` is empty"),
            ("{\"messages\":[{\"role\":\"bot\",\"content\":\"\"}]}", "message 1: unknown role `bot`"),
            ("{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[]}]}", "message 1: unknown key `tool_calls`"),
        ] {
            let said = problem(format!("{{\"text\":\"fine\"}}\n{line}").as_bytes());
            assert!(said.contains(":2: ") && said.contains(expected), "{line}: {said}");
        }
        assert!(problem(b"\xFF\xFE").contains(":1: byte 1 is not UTF-8"));
        assert!(problem("[".repeat(100_000).as_bytes()).contains(":1: "));
        assert!(problem(format!("{{\"x\":{}", "[".repeat(100_000)).as_bytes()).contains("recursion limit"));
    }

    #[test]
    fn twenty_wrong_lines_are_told_and_no_more() {
        let said = problem("{}\n".repeat(50).as_bytes());
        assert_eq!(said.matches("data.jsonl:").count(), 20, "{said}");
    }

    #[test]
    fn a_line_of_ten_gigabytes_is_refused_without_being_held() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("zeros");
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        let said = read(&[path]).unwrap_err().message;
        assert!(said.contains("zeros:1: the line is longer than 64 MiB"), "{said}");
    }

    #[test]
    fn folders_are_read_in_the_order_of_their_names() {
        let space = tempfile::tempdir().unwrap();
        std::fs::create_dir(space.path().join("b")).unwrap();
        for (name, text) in [("z.jsonl", "3"), ("b/data.jsonl", "2"), ("a.jsonl", "1"), ("dataset.json", "not a record")] {
            std::fs::write(space.path().join(name), format!("{{\"text\":\"{text}\"}}\n")).unwrap();
        }
        let folder = space.path().to_path_buf();
        let records = read(&[folder.clone(), folder.join("a.jsonl")]).unwrap();
        assert_eq!(records, ["1", "2", "3", "1"].map(|text| Record::Text(text.into())));
        // A text file is one text, whatever is in it.
        std::fs::write(folder.join("b/e.txt"), "one\n{\"two\"").unwrap();
        assert_eq!(read(&[folder.join("b")]).unwrap(), ["2", "one\n{\"two\""].map(|text| Record::Text(text.into())));
        std::fs::write(folder.join("b/e.txt"), [b'a', 0xff]).unwrap();
        assert!(read(&[folder.join("b")]).unwrap_err().message.contains("e.txt: byte 2 is not UTF-8"));
        std::fs::create_dir(folder.join("empty")).unwrap();
        assert!(read(&[folder.join("empty")]).unwrap_err().message.contains("holds no *.jsonl and no *.txt file"));
        assert!(read(&[folder.join("none")]).unwrap_err().message.contains("cannot read"));
    }

    #[test]
    fn objects_may_have_any_keys() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("questions.jsonl");
        std::fs::write(&path, "\u{feff}{\"question\": \"a\", \"answer\": 1}\n\n{\"x\": [1, {\"y\": null}]}\n").unwrap();
        let objects = read_objects(std::slice::from_ref(&path)).unwrap();
        assert_eq!((objects.len(), &objects[0]["answer"], &objects[1]["x"][1]["y"]), (2, &Value::from(1), &Value::Null));
        std::fs::write(&path, "{}\n[1]\n{\"a\":1,\"a\":2}\n").unwrap();
        std::fs::write(space.path().join("a.txt"), "a text").unwrap();
        let wrong = read_objects(&[space.path().to_path_buf()]).unwrap_err();
        for said in [
            "a.txt: a text",
            "questions.jsonl:2: invalid type: sequence, expected a JSON object",
            ":3: the key `a` stands twice",
            "3 lines are wrong",
        ] {
            assert!(wrong.message.contains(said), "{said}: {wrong}");
        }
    }

    fn any_line() -> impl Strategy<Value = Line> {
        let text = any::<String>();
        let message = (prop::sample::select(vec!["system", "user", "assistant", "tool"]), any::<String>())
            .prop_map(|(role, content)| Message { role: role.into(), content });
        let record = prop_oneof![
            (text, any::<Option<String>>()).prop_map(|(prompt, completion)| Record::Pair { prompt, completion }),
            prop::collection::vec(message, 1..4).prop_map(Record::Messages),
            any::<String>().prop_map(Record::Text),
        ];
        let extra = prop::collection::btree_map("x_[a-z]{0,6}", any::<i64>().prop_map(Value::from), 0..3);
        (record, extra).prop_map(|(record, extra)| Line { record, extra })
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(lines in prop::collection::vec(any_line(), 0..8)) {
            let bytes = lines.iter().map(written).collect::<Vec<_>>().concat();
            prop_assert_eq!(read_bytes(&bytes).unwrap(), lines);
        }

        #[test]
        fn mangled_bytes_never_panic(line in any_line(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = written(&line);
            let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
            bytes[at] = byte;
            let _ = read_bytes(&bytes);
            let _ = read_bytes(&bytes[..cut]);
            let _ = read_bytes(&[byte; 40]);
        }
    }
}
