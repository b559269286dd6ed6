// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The caddy-x402 Authors
//
// Licensed under the Apache License, Version 2.0; see the LICENSE file of this repository.

pragma solidity 0.8.37;

import {SignatureChecker} from "./SignatureChecker.sol";

/// A contract wallet with one owner (EIP-1271). An account that delegates to this code (EIP-7702) has an
/// empty storage and so no owner: its own key signs for it.
contract Wallet {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    receive() external payable {}

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        address signer = SignatureChecker.recover(digest, signature);
        return signer == owner || signer == address(this) ? SignatureChecker.MAGIC : bytes4(0xffffffff);
    }

    /// Calls any contract in the wallet's name.
    function execute(address target, uint256 value, bytes calldata data) external returns (bytes memory) {
        require(msg.sender == owner || msg.sender == address(this), "Wallet: caller is not the owner");
        (bool ok, bytes memory answer) = target.call{value: value}(data);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        return answer;
    }
}

/// A contract wallet that answers as its mode says, whatever the signature: what a payer could deploy to
/// hurt whoever settles its payments.
contract HostileWallet {
    enum Mode {
        Accept,
        Refuse,
        Revert,
        /// Burns whatever gas it gets.
        BurnGas,
        /// Accepts, with an answer of `size` bytes that the caller pays to copy.
        ReturnBomb,
        /// Reverts with `size` bytes that the caller pays to copy.
        RevertBomb,
        /// Accepts after burning `size` gas.
        Expensive,
        /// Accepts when nobody pays for the gas, as in a simulation, and refuses in a block.
        AcceptInSimulation
    }

    Mode public mode;
    uint256 public size;

    constructor(Mode mode_, uint256 size_) {
        mode = mode_;
        size = size_;
    }

    /// Anybody may: a test changes the wallet's mind between a simulation and the transaction.
    function setMode(Mode mode_, uint256 size_) external {
        mode = mode_;
        size = size_;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        Mode m = mode;
        uint256 n = size;
        if (m == Mode.Refuse) return bytes4(0xffffffff);
        if (m == Mode.Revert) revert("HostileWallet: no");
        if (m == Mode.BurnGas) {
            assembly {
                invalid()
            }
        }
        if (m == Mode.ReturnBomb) {
            bytes4 magic = SignatureChecker.MAGIC;
            assembly ("memory-safe") {
                let p := mload(0x40)
                mstore(p, magic)
                return(p, n)
            }
        }
        if (m == Mode.RevertBomb) {
            assembly ("memory-safe") {
                revert(mload(0x40), n)
            }
        }
        if (m == Mode.Expensive) {
            uint256 start = gasleft();
            while (start - gasleft() < n) {}
        }
        if (m == Mode.AcceptInSimulation && tx.gasprice != 0) return bytes4(0xffffffff);
        return SignatureChecker.MAGIC;
    }
}
