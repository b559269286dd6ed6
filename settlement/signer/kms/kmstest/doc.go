// Package kmstest is a fake of the AWS KMS API on this machine, with real keys behind it: it speaks its JSON protocol
// (application/x-amz-json-1.1, TrentService.Sign and TrentService.GetPublicKey), checks the Signature Version 4 of each
// request, and answers as the service does, with signatures in DER whose s is high as often as low, and with its errors by
// their names. It is no AWS: what it knows of the service is what this project's author read of it.
package kmstest
