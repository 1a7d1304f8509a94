//! Deserializes values from a path, a query or a JSON body.

use std::vec;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use super::json::{self, COMPACT, Invalid};

/// The source of a field's value.
pub enum Source<'a> {
    /// The path, or the query, where a parameter may be repeated.
    Texts(Vec<String>),
    /// The body.
    Json(&'a RawValue),
}

impl Source<'_> {
    /// Whether the value in a query equals the value in a body.
    #[must_use]
    pub fn is(&self, raw: &RawValue) -> bool {
        let Self::Texts(texts) = self else { return false };
        let text = json::read::<String>(raw);
        let said = text.as_deref().unwrap_or_else(|_| raw.get().strip_suffix(".0").unwrap_or(raw.get()));
        texts.as_slice() == [said]
    }

    /// The text from a path or query. `None` for a value from a body.
    fn text(self) -> Result<Option<String>, Invalid> {
        match self {
            Self::Texts(texts) if texts.len() > 1 => Err(Invalid::custom("must be given once")),
            Self::Texts(texts) => Ok(texts.into_iter().next()),
            Self::Json(_) => Ok(None),
        }
    }
}

impl<'de> Deserializer<'de> for Source<'_> {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        let Self::Json(raw) = self else { return visitor.visit_string(self.text()?.unwrap_or_default()) };
        match raw.get().as_bytes().first() {
            Some(b'"') => visitor.visit_string(json::read(raw)?),
            Some(b'{') => {
                let fields = json::object(raw)?.unwrap_or_default().into_iter();
                let fields: Vec<_> = fields.map(|(name, raw)| (name, Source::Json(raw))).collect();
                visitor.visit_map(Members::of(fields))
            }
            Some(b'[') => {
                let entries =
                    json::read::<Vec<&RawValue>>(raw)?.into_iter().map(Source::Json).collect::<Vec<_>>();
                visitor.visit_seq(Entries { entries: entries.into_iter(), place: Some(0) })
            }
            Some(b't' | b'f') => self.deserialize_bool(visitor),
            Some(b'n') => Err(Invalid::custom("is missing")),
            Some(_) | None => match whole(raw) {
                Some(number) => visitor.visit_i64(number),
                None => Err(Invalid::invalid_type(Unexpected::Other("a fraction"), &visitor)),
            },
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        if matches!(self, Self::Json(_)) {
            return self.deserialize_any(visitor);
        }
        let text = self.text()?.unwrap_or_default();
        // Digits only: no sign, no white space.
        match text.parse() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => visitor.visit_i64(number),
            Ok(_) | Err(_) => Err(Invalid::invalid_type(Unexpected::Str(&text), &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        let text = if let Self::Json(raw) = self { Some(raw.get().to_owned()) } else { self.text()? };
        match text.as_deref() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            Some(_) | None => Err(Invalid::custom("must be true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self {
            Self::Json(raw) if raw.get() == "null" => visitor.visit_none(),
            Self::Texts(_) | Self::Json(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        let Self::Texts(texts) = self else { return self.deserialize_any(visitor) };
        let entries: Vec<_> = texts.into_iter().map(|text| Source::Texts(vec![text])).collect();
        visitor.visit_seq(Entries { entries: entries.into_iter(), place: None })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &str,
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        match self {
            Self::Json(raw) if name == COMPACT && raw.get().starts_with('{') => {
                visitor.visit_string(json::compact(raw)?)
            }
            Self::Texts(_) | Self::Json(_) => Err(Invalid::invalid_type(Unexpected::Unit, &visitor)),
        }
    }

    /// A field that the operation does not have may have any value.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct enum identifier
    }
}

/// Parses a whole number, also one with a decimal point: JSON has only one kind of number (RFC 8259 §6).
fn whole(raw: &RawValue) -> Option<i64> {
    let number: serde_json::Number = serde_json::from_str(raw.get()).ok()?;
    number.as_i64().or_else(|| {
        // At most 16 digits, so that each whole number has a notation of its own.
        let text = number.to_string();
        text.strip_suffix(".0").filter(|digits| digits.len() <= 16)?.parse().ok()
    })
}

/// The members of an object.
pub struct Members<'a> {
    fields: vec::IntoIter<(String, Source<'a>)>,
    value: Option<(String, Source<'a>)>,
}

impl<'a> Members<'a> {
    /// An object with these members.
    #[must_use]
    pub fn of(fields: Vec<(String, Source<'a>)>) -> Self {
        Self { fields: fields.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Invalid;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Invalid> {
        self.value = self.fields.next();
        let name = self.value.as_ref().map(|(name, _)| seed.deserialize(StrDeserializer::new(name)));
        name.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Invalid> {
        let (name, source) = self.value.take().ok_or_else(|| Invalid::custom("has no value"))?;
        seed.deserialize(source).map_err(|invalid| invalid.under(&name))
    }
}

impl<'de> Deserializer<'de> for Members<'_> {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The entries of a list, with the index of the next entry if refusals are to name it.
struct Entries<'a> {
    entries: vec::IntoIter<Source<'a>>,
    place: Option<usize>,
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = Invalid;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Invalid> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        let place = self.place;
        self.place = place.map(|place| place + 1);
        seed.deserialize(entry)
            .map(Some)
            .map_err(|invalid| invalid.under(&place.map(|place| format!("[{place}]")).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_be_written_with_a_decimal_point() {
        let number = |text: &str| whole(serde_json::from_str(text).unwrap());
        let read = ["7", "7.0", "-7.0", "4e2"].map(number);
        assert_eq!(read, [Some(7), Some(7), Some(-7), Some(400)]);
        assert_eq!(["7.5", "1e300", "0.1"].map(number), [None, None, None]);
    }
}
