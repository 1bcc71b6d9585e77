package client

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// The order of the Ed25519 base point.
var ed25519Order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

// step computes one level: a shift of the point and the next chain code, from the parent as one parity byte and one
// coordinate.
func step(parent [33]byte, chainCode []byte, index uint32, order *big.Int) (*big.Int, []byte, error) {
	if index >= 1<<31 {
		return nil, nil, errors.New("the index is hardened")
	}
	mac := hmac.New(sha512.New, chainCode)
	mac.Write(binary.BigEndian.AppendUint32(parent[:], index))
	sum := mac.Sum(nil)
	shift := new(big.Int).Mod(new(big.Int).SetBytes(sum[:32]), order)
	if shift.Sign() == 0 {
		return nil, nil, errors.New("the shift is zero")
	}
	return shift, sum[32:], nil
}

// DeriveSecp256k1 returns the child key at a path below a key given as X and Y.
func DeriveSecp256k1(parent, chainCode []byte, path []uint32) (*secp256k1.PublicKey, error) {
	key, err := secp256k1.ParsePubKey(append([]byte{4}, parent...))
	if err != nil {
		return nil, err
	}
	for _, index := range path {
		shift, next, err := step([33]byte(key.SerializeCompressed()), chainCode, index, secp256k1.S256().N)
		if err != nil {
			return nil, err
		}
		var scalar secp256k1.ModNScalar
		scalar.SetByteSlice(shift.FillBytes(make([]byte, 32)))
		var added, point, child secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&scalar, &added)
		key.AsJacobian(&point)
		secp256k1.AddNonConst(&point, &added, &child)
		child.ToAffine()
		key, chainCode = secp256k1.NewPublicKey(&child.X, &child.Y), next
	}
	return key, nil
}

// DeriveEd25519 returns the child key at a path below a key, both in their usual 32 bytes.
func DeriveEd25519(parent, chainCode []byte, path []uint32) ([]byte, error) {
	point, err := new(edwards25519.Point).SetBytes(parent)
	if err != nil {
		return nil, err
	}
	for _, index := range path {
		shift, next, err := step(affine(point), chainCode, index, ed25519Order)
		if err != nil {
			return nil, err
		}
		little := shift.FillBytes(make([]byte, 32))
		slices.Reverse(little)
		scalar, err := new(edwards25519.Scalar).SetCanonicalBytes(little)
		if err != nil {
			return nil, err
		}
		point.Add(point, new(edwards25519.Point).ScalarBaseMult(scalar))
		chainCode = next
	}
	return point.Bytes(), nil
}

// affine returns the parity of y and the coordinate x, big-endian: what the existing system hashes for Ed25519.
func affine(point *edwards25519.Point) [33]byte {
	x, y, z, _ := point.ExtendedCoordinates()
	inverse := new(field.Element).Invert(z)
	xs := new(field.Element).Multiply(x, inverse).Bytes()
	ys := new(field.Element).Multiply(y, inverse).Bytes()
	var out [33]byte
	out[0] = 2 | ys[0]&1
	slices.Reverse(xs)
	copy(out[1:], xs)
	return out
}
