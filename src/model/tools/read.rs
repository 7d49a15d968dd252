//! Calls out of the tokens of an answer that followed their grammar. One that was cut is none.

use serde_json::{Map, Number, Value};

use super::{CallSyntax, ToolCall};
use crate::model::tokenizer::{Tokenizer, ToolTokens};

/// Deepest nesting of arguments.
const MAX_DEPTH: usize = 64;

/// The whole calls among `ids`, in order.
pub fn read_calls(syntax: CallSyntax, tokenizer: &Tokenizer, ids: &[u32]) -> Vec<ToolCall> {
    match syntax {
        CallSyntax::Tokens(tokens) => between(ids, tokens.call)
            .filter_map(|ids| Cursor::new(tokenizer, &tokens, ids).call())
            .collect(),
        CallSyntax::Json => json_calls(tokenizer, ids),
    }
}

/// What stands between the two marks, each time.
fn between(ids: &[u32], [start, end]: [u32; 2]) -> impl Iterator<Item = &[u32]> {
    ids.split(move |&id| id == start)
        .skip(1)
        .filter_map(move |ids| {
            let at = ids.iter().position(|&id| id == end)?;
            Some(&ids[..at])
        })
}

fn json_calls(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<ToolCall> {
    let mut bytes = Vec::new();
    for &id in ids {
        tokenizer.append_token_bytes(id, &mut bytes);
    }
    let values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
    let call = |mut value: Value| {
        let name = value.get("name")?.as_str()?.to_owned();
        match value.get_mut("parameters")?.take() {
            Value::Object(arguments) => Some(ToolCall { name, arguments }),
            _ => None,
        }
    };
    values.map_while(Result::ok).map_while(call).collect()
}

/// A byte of text, or the mark of a quotation.
#[derive(Clone, Copy, PartialEq)]
enum Symbol {
    Byte(u8),
    Quote,
}

struct Cursor {
    symbols: Vec<Symbol>,
    at: usize,
}

impl Cursor {
    fn new(tokenizer: &Tokenizer, tokens: &ToolTokens, ids: &[u32]) -> Cursor {
        let mut symbols = Vec::new();
        let mut bytes = Vec::new();
        for &id in ids {
            if id == tokens.quote {
                symbols.push(Symbol::Quote);
                continue;
            }
            bytes.clear();
            tokenizer.append_token_bytes(id, &mut bytes);
            symbols.extend(bytes.iter().copied().map(Symbol::Byte));
        }
        Cursor { symbols, at: 0 }
    }

    /// `call:NAME{…}`
    fn call(mut self) -> Option<ToolCall> {
        let name = self.until(|symbol| symbol == Symbol::Byte(b'{'))?;
        let name = name.strip_prefix("call:")?.to_owned();
        let Value::Object(arguments) = self.value(0)? else {
            return None;
        };
        (self.at == self.symbols.len()).then_some(ToolCall { name, arguments })
    }

    fn peek(&self) -> Option<Symbol> {
        self.symbols.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == Symbol::Byte(byte);
        self.at += usize::from(found);
        found.then_some(())
    }

    /// The text before the next symbol that `ends`, which must come.
    fn until(&mut self, ends: impl Fn(Symbol) -> bool) -> Option<String> {
        let rest = &self.symbols[self.at..];
        let length = rest.iter().position(|&symbol| ends(symbol))?;
        let bytes = rest[..length].iter().filter_map(|symbol| match symbol {
            Symbol::Byte(byte) => Some(*byte),
            Symbol::Quote => None,
        });
        let text = String::from_utf8(bytes.collect()).ok()?;
        self.at += length;
        Some(text)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            Symbol::Quote => {
                self.at += 1;
                let text = self.until(|symbol| symbol == Symbol::Quote)?;
                self.at += 1;
                Some(Value::String(text))
            }
            Symbol::Byte(b'[') => {
                let mut values = Vec::new();
                self.entries(b'[', b']', |cursor| {
                    values.push(cursor.value(depth + 1)?);
                    Some(())
                })?;
                Some(Value::Array(values))
            }
            Symbol::Byte(b'{') => {
                let mut keys = Map::new();
                self.entries(b'{', b'}', |cursor| {
                    let key = cursor.until(|symbol| symbol == Symbol::Byte(b':'))?;
                    cursor.take(b':')?;
                    keys.insert(key, cursor.value(depth + 1)?);
                    Some(())
                })?;
                Some(Value::Object(keys))
            }
            Symbol::Byte(_) => {
                let ends =
                    |symbol| matches!(symbol, Symbol::Byte(b',' | b'}' | b']') | Symbol::Quote);
                match self.until(ends)?.as_str() {
                    "true" => Some(Value::Bool(true)),
                    "false" => Some(Value::Bool(false)),
                    "null" => Some(Value::Null),
                    number => number.parse::<Number>().ok().map(Value::Number),
                }
            }
        }
    }

    /// Entries between two brackets, with commas between them.
    fn entries(
        &mut self,
        open: u8,
        close: u8,
        mut entry: impl FnMut(&mut Cursor) -> Option<()>,
    ) -> Option<()> {
        self.take(open)?;
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            entry(self)?;
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }
}
