// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The caddy-x402 Authors
//
// Licensed under the Apache License, Version 2.0; see the LICENSE file of this repository.

pragma solidity 0.8.37;

/// Who signed? An account with code is asked (EIP-1271), any other is judged by its key.
library SignatureChecker {
    bytes4 internal constant MAGIC = 0x1626ba7e;

    /// Half of the order of secp256k1: of the two s that sign the same digest, only the lower one counts.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    function isValid(address signer, bytes32 digest, bytes memory signature) internal view returns (bool) {
        if (signer.code.length == 0) {
            return recover(digest, signature) == signer;
        }
        // The wallet gets all the gas there is and its whole answer is copied, however long: so does the
        // token that this one stands for, and so a hostile wallet hurts here as it would there.
        (bool ok, bytes memory answer) =
            signer.staticcall(abi.encodeWithSelector(MAGIC, digest, signature));
        return ok && answer.length >= 32 && abi.decode(answer, (bytes32)) == bytes32(MAGIC);
    }

    function recover(bytes32 digest, bytes memory signature) internal pure returns (address signer) {
        require(signature.length == 65, "ECRecover: invalid signature length");
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
        require(uint256(s) <= HALF_ORDER, "ECRecover: invalid signature 's' value");
        require(v == 27 || v == 28, "ECRecover: invalid signature 'v' value");
        signer = ecrecover(digest, v, r, s);
        require(signer != address(0), "ECRecover: invalid signature");
    }
}
