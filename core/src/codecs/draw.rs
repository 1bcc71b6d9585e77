//! Values of any type that can be read, drawn from a seed: the type asks for its parts as if it read them from bytes.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::{Error, U32Deserializer},
};
use serde::de::{Error as _, IntoDeserializer as _};

/// Levels of lists in lists after which they are empty.
const NESTED_MAX: usize = 6;

/// A value of this type.
pub fn drawn<T: DeserializeOwned>(seed: u64) -> T {
    let mut draw = Draw { rng: ChaCha20Rng::seed_from_u64(seed), nested: 0 };
    T::deserialize(&mut draw).expect("every value of every part is allowed")
}

struct Draw {
    rng: ChaCha20Rng,
    nested: usize,
}

impl Draw {
    /// Any number, and often one at which an encoding becomes longer.
    fn number(&mut self, most: u64) -> u64 {
        let edges = [0, 1, 127, 128, 16_383, 16_384, most.saturating_sub(1), most];
        match self.rng.next_u32() % 3 {
            0 => edges[self.rng.next_u32() as usize % edges.len()].min(most),
            1 => u64::from(self.rng.next_u32() % 200).min(most),
            _ => self.rng.next_u64() & most,
        }
    }

    fn few(&mut self) -> usize {
        if self.nested > NESTED_MAX { 0 } else { self.rng.next_u32() as usize % 4 }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.next_u32() as usize % 40];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'Z', '0', '\0', '"', 'é', '錢', '🔑', '\n'];
        (0..self.rng.next_u32() % 12).map(|_| letters[self.rng.next_u32() as usize % letters.len()]).collect()
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ident,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.number($type::MAX as u64);
            visitor.$visit(number as $type)
        })*
    };
}

macro_rules! never {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("an encoding that does not describe itself holds no such thing"))
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Draw {
    type Error = Error;

    numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    }
    never! { deserialize_any deserialize_f32 deserialize_f64 deserialize_char deserialize_identifier deserialize_ignored_any }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.rng.next_u32().is_multiple_of(2))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.rng.next_u32().is_multiple_of(3) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let count = self.few();
        self.nested += 1;
        let list = visitor.visit_seq(Parts { draw: self, left: count });
        self.nested -= 1;
        list
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let count = self.few();
        self.nested += 1;
        let map = visitor.visit_map(Parts { draw: self, left: count });
        self.nested -= 1;
        map
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts { draw: self, left: count })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(count, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Variant { number: self.rng.next_u32() % variants.len() as u32, draw: self })
    }
}

struct Parts<'a> {
    draw: &'a mut Draw,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.draw).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.draw)
    }
}

struct Variant<'a> {
    draw: &'a mut Draw,
    number: u32,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let number: U32Deserializer<Error> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.draw)
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        self.draw.deserialize_tuple(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.draw.deserialize_tuple(fields.len(), visitor)
    }
}
