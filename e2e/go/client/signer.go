package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// Signer signs as an initiator or an authorizer.
type Signer interface {
	Sign(message []byte) ([]byte, error)
}

// Ed25519Signer signs with a seed.
type Ed25519Signer struct{ key ed25519.PrivateKey }

// Sign returns 64 bytes.
func (s Ed25519Signer) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

// P256Signer signs with fresh randomness each time.
type P256Signer struct{ key *ecdsa.PrivateKey }

// Sign returns DER.
func (s P256Signer) Sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
}

// ReadSigner reads a key file; a file whose name ends in .age is decrypted with the password.
func ReadSigner(algorithm, path, password string) (Signer, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".age") {
		identity, err := age.NewScryptIdentity(password)
		if err != nil {
			return nil, err
		}
		plain, err := age.Decrypt(bytes.NewReader(content), identity)
		if err != nil {
			return nil, err
		}
		if content, err = io.ReadAll(plain); err != nil {
			return nil, err
		}
	}
	switch algorithm {
	case "ed25519":
		seed, err := hex.DecodeString(string(bytes.TrimSpace(content)))
		if err != nil {
			return nil, err
		}
		return newSeedSigner(seed)
	case "p256":
		return parseP256(content)
	}
	return nil, fmt.Errorf("unknown algorithm %q", algorithm)
}

func newSeedSigner(seed []byte) (Signer, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("a seed has %d bytes, got %d", ed25519.SeedSize, len(seed))
	}
	return Ed25519Signer{ed25519.NewKeyFromSeed(seed)}, nil
}

func parseP256(content []byte) (Signer, error) {
	der, err := hex.DecodeString(strings.TrimPrefix(string(bytes.TrimSpace(content)), "0x"))
	if err != nil {
		der = content
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if key, ok := key.(*ecdsa.PrivateKey); ok && key.Curve == elliptic.P256() {
			return P256Signer{key}, nil
		}
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil || key.Curve != elliptic.P256() {
		return nil, errors.New("neither PKCS#8 nor SEC1 of a P-256 key")
	}
	return P256Signer{key}, nil
}

// KMSSigner signs with a key that never leaves AWS KMS.
type KMSSigner struct {
	service *kms.Client
	keyID   string
}

// KMSOptions of a KMSSigner. Without static credentials those of the environment or of the machine's role are used.
type KMSOptions struct {
	Region, KeyID, Endpoint, AccessKeyID, SecretAccessKey string
}

// NewKMSSigner connects and checks that the key is one of P-256.
func NewKMSSigner(ctx context.Context, options KMSOptions) (*KMSSigner, error) {
	loading := []func(*config.LoadOptions) error{config.WithRegion(options.Region)}
	if options.AccessKeyID != "" {
		static := credentials.NewStaticCredentialsProvider(options.AccessKeyID, options.SecretAccessKey, "")
		loading = append(loading, config.WithCredentialsProvider(static))
	}
	loaded, err := config.LoadDefaultConfig(ctx, loading...)
	if err != nil {
		return nil, err
	}
	service := kms.NewFromConfig(loaded, func(o *kms.Options) {
		if options.Endpoint != "" {
			o.BaseEndpoint = aws.String(options.Endpoint)
		}
	})
	key, err := service.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(options.KeyID)})
	if err != nil {
		return nil, err
	}
	// Not every emulator says of which kind the key is; the key itself does.
	public, err := x509.ParsePKIXPublicKey(key.PublicKey)
	if err != nil {
		return nil, err
	}
	if point, ok := public.(*ecdsa.PublicKey); !ok || point.Curve != elliptic.P256() {
		return nil, errors.New("the key is not one of P-256")
	}
	return &KMSSigner{service, options.KeyID}, nil
}

// Sign returns DER over the SHA-256 of the message, which the service computes.
func (s *KMSSigner) Sign(message []byte) ([]byte, error) {
	signed, err := s.service.Sign(context.Background(), &kms.SignInput{
		KeyId:            aws.String(s.keyID),
		Message:          message,
		MessageType:      types.MessageTypeRaw,
		SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
	})
	if err != nil {
		return nil, err
	}
	return signed.Signature, nil
}
